/**
 * A line editor that draws itself: several lines, wide characters, history, pastes, and a window that changes size.
 *
 * Own code because node:readline (also through Deno) has neither bracketed paste nor more than one line, and drops
 * what is typed between two questions.
 */
import type { History } from "./history.ts";
import type { KeyName, TerminalInput } from "./keys.ts";
import { type Layout, layout, positionAt, type Row } from "./layout.ts";
import { type Atom, LineBuffer } from "./line_buffer.ts";
import { columnsOf, graphemes } from "./width.ts";

/** The screen as the editor needs it. */
export interface Screen {
  write(text: string): void;
  columns(): number;
  rows(): number;
}

export interface LineEditorOptions {
  prompt?: string;
  /** Stands before every line after the first. */
  continuation?: string;
  history: History;
  /** What Tab may complete the text to. */
  complete?: (text: string) => string[];
}

/** How an edit ended. `interrupt`: Ctrl+C on an empty line; `end`: Ctrl+D on an empty line. */
export type EditResult = { type: "line"; text: string } | { type: "interrupt" } | { type: "end" };

/** A paste longer than this (characters) is shown as a label. */
const PASTE_SHOWN_MAX = 1000;
const FENCE = '"""';

/** True while the text opened `"""` and has not closed it. */
export function isOpen(text: string): boolean {
  const trimmed = text.trimStart();
  return trimmed.startsWith(FENCE) && (trimmed.length < 6 || !trimmed.trimEnd().endsWith(FENCE));
}

/** The message without the `"""` around it. */
export function withoutFence(text: string): string {
  const trimmed = text.trim();
  if (!trimmed.startsWith(FENCE) || !trimmed.endsWith(FENCE) || trimmed.length < 6) return text;
  return trimmed.slice(3, -3).replace(/^\n/, "").replace(/\n$/, "");
}

/** What stands for a long paste. */
function pasteLabel(text: string): string {
  const lines = text.split("\n").length;
  return `[pasted: ${lines} ${lines === 1 ? "line" : "lines"}, ${text.length.toLocaleString("en")} characters]`;
}

/** Edits one message at a time: `begin`, then `handle` every input until it returns a result. */
export class LineEditor {
  #screen: Screen;
  #options: Required<Omit<LineEditorOptions, "complete">> & Pick<LineEditorOptions, "complete">;
  #buffer = new LineBuffer();
  #drawn: { rows: Row[]; cursorRow: number; cursorColumn: number } = { rows: [], cursorRow: 0, cursorColumn: 0 };
  #top = 0;
  #goalColumn: number | undefined;

  constructor(screen: Screen, options: LineEditorOptions) {
    this.#screen = screen;
    this.#options = { prompt: ">>> ", continuation: "... ", ...options };
  }

  /** What has been typed so far. */
  get text(): string {
    return this.#buffer.text;
  }

  /** Shows the prompt on a fresh row. */
  begin(): void {
    this.#buffer.clear();
    this.#drawn = { rows: [], cursorRow: 0, cursorColumn: 0 };
    this.#top = 0;
    this.#draw();
  }

  /** Takes one input; answers when the message is done. */
  handle(input: TerminalInput): EditResult | undefined {
    if (input.type !== "key" || (input.key !== "up" && input.key !== "down")) this.#goalColumn = undefined;
    if (input.type === "text") this.#buffer.insertText(input.text);
    else if (input.type === "paste") this.#paste(input.text);
    else {
      const result = this.#key(input.key);
      if (result !== undefined) return result;
    }
    this.#draw();
    return undefined;
  }

  /**
   * The window changed. Terminals wrap the rows that became too long, so the cursor is now further down by the rows
   * that this added; from there everything is drawn anew.
   */
  resize(): void {
    const columns = this.#columns();
    let above = 0;
    for (let i = 0; i < this.#drawn.cursorRow; i++) {
      above += Math.max(1, Math.ceil(this.#drawn.rows[i].width / columns));
    }
    this.#drawn.cursorRow = above + Math.floor(this.#drawn.cursorColumn / columns);
    this.#draw();
  }

  /** Draws the prompt and text again below something that was printed. */
  redraw(): void {
    this.#drawn = { rows: [], cursorRow: 0, cursorColumn: 0 };
    this.#draw();
  }

  #columns(): number {
    return Math.max(10, this.#screen.columns());
  }

  #layout(): Layout {
    const { prompt, continuation } = this.#options;
    return layout(this.#buffer.atoms, this.#buffer.cursor, prompt, continuation, this.#columns());
  }

  #draw(): void {
    const laid = this.#layout();
    const height = Math.max(1, this.#screen.rows() - 1);
    this.#top = Math.min(this.#top, laid.cursorRow, Math.max(0, laid.rows.length - height));
    this.#top = Math.max(this.#top, laid.cursorRow - height + 1);
    const rows = laid.rows.slice(this.#top, this.#top + height);
    const cursorRow = laid.cursorRow - this.#top;
    const up = this.#drawn.cursorRow;
    const back = rows.length - 1 - cursorRow;
    this.#screen.write(
      "\x1b[?25l" + (up > 0 ? `\x1b[${up}A` : "") + "\r\x1b[J" + rows.map((row) => row.text).join("\r\n") +
        (back > 0 ? `\x1b[${back}A` : "") + "\r" + (laid.cursorColumn > 0 ? `\x1b[${laid.cursorColumn}C` : "") +
        "\x1b[?25h",
    );
    this.#drawn = { rows, cursorRow, cursorColumn: laid.cursorColumn };
  }

  /** Leaves what was typed on the screen, with the cursor on the row below. */
  #leave(): void {
    this.#buffer.moveTo(this.#buffer.atoms.length);
    this.#draw();
    this.#screen.write("\r\n");
  }

  #paste(text: string): void {
    const lines = text.split("\n").length;
    if (text.length > PASTE_SHOWN_MAX || lines > Math.max(4, this.#screen.rows() / 2)) {
      this.#buffer.insertAtom({ text, label: pasteLabel(text) });
    } else if (text !== "") this.#buffer.insertText(text);
  }

  /** Puts a whole text in, long ones as a label. */
  #setText(text: string): void {
    const long = text.length > PASTE_SHOWN_MAX || text.split("\n").length > Math.max(4, this.#screen.rows() / 2);
    const atoms: Atom[] = long ? [{ text, label: pasteLabel(text) }] : graphemes(text).map((part) => ({ text: part }));
    this.#buffer.set(atoms);
  }

  #key(key: KeyName): EditResult | undefined {
    const buffer = this.#buffer;
    const action = ACTIONS[key];
    if (action !== undefined) {
      action(buffer);
      return undefined;
    }
    switch (key) {
      case "enter":
        return this.#enter();
      case "newline":
        buffer.insertText("\n");
        return undefined;
      case "up":
      case "down":
        this.#vertical(key);
        return undefined;
      case "history-previous":
      case "history-next":
        this.#walkHistory(key === "history-previous");
        return undefined;
      case "tab":
        this.#complete();
        return undefined;
      case "redraw":
        this.#screen.write("\x1b[H\x1b[2J");
        this.#drawn = { rows: [], cursorRow: 0, cursorColumn: 0 };
        return undefined;
      case "interrupt":
        if (buffer.isEmpty) return this.#end({ type: "interrupt" });
        this.#leave();
        this.begin();
        return undefined;
      case "end-of-input":
        if (buffer.isEmpty) return this.#end({ type: "end" });
        buffer.delete();
        return undefined;
      default:
        return undefined;
    }
  }

  #end(result: EditResult): EditResult {
    this.#leave();
    return result;
  }

  #enter(): EditResult | undefined {
    const buffer = this.#buffer;
    const before = buffer.atoms[buffer.cursor - 1];
    if (buffer.cursor === buffer.atoms.length && before?.text === "\\") {
      buffer.backspace();
      buffer.insertText("\n");
      return undefined;
    }
    if (isOpen(buffer.text)) {
      buffer.insertText("\n");
      return undefined;
    }
    const text = buffer.text;
    this.#options.history.add(text);
    return this.#end({ type: "line", text: withoutFence(text) });
  }

  #vertical(key: "up" | "down"): void {
    const laid = this.#layout();
    const row = laid.cursorRow + (key === "up" ? -1 : 1);
    if (row < 0 || row >= laid.rows.length) {
      this.#walkHistory(key === "up");
      return;
    }
    this.#goalColumn ??= laid.cursorColumn;
    this.#buffer.moveTo(positionAt(laid, row, this.#goalColumn));
  }

  #walkHistory(back: boolean): void {
    const entry = back ? this.#options.history.previous(this.#buffer.text) : this.#options.history.next();
    if (entry !== undefined) this.#setText(entry);
  }

  #complete(): void {
    const text = this.#buffer.text;
    const choices = this.#options.complete?.(text) ?? [];
    if (choices.length === 0) return;
    let common = choices[0];
    for (const choice of choices) {
      while (!choice.startsWith(common)) common = common.slice(0, -1);
    }
    if (common.length > text.length) this.#setText(choices.length === 1 ? `${common} ` : common);
    else if (choices.length > 1) {
      this.#leave();
      const widest = Math.max(...choices.map(columnsOf)) + 2;
      this.#screen.write(choices.map((choice) => choice.padEnd(widest)).join("").trimEnd() + "\r\n");
      this.#drawn = { rows: [], cursorRow: 0, cursorColumn: 0 };
    }
  }
}

const ACTIONS: Partial<Record<KeyName, (buffer: LineBuffer) => void>> = {
  "left": (b) => b.left(),
  "right": (b) => b.right(),
  "word-left": (b) => b.wordLeft(),
  "word-right": (b) => b.wordRight(),
  "home": (b) => b.home(),
  "end": (b) => b.end(),
  "backspace": (b) => b.backspace(),
  "delete": (b) => b.delete(),
  "delete-word-left": (b) => b.deleteWordLeft(),
  "delete-word-right": (b) => b.deleteWordRight(),
  "delete-to-start": (b) => b.deleteToStart(),
  "delete-to-end": (b) => b.deleteToEnd(),
  "yank": (b) => b.yank(),
  "transpose": (b) => b.transpose(),
  "undo": (b) => b.undo(),
};
