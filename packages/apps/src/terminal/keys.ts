/**
 * Turns the bytes of a terminal in raw mode into keys, typed text and pastes.
 *
 * Sequences: ECMA-48 CSI and xterm's control sequences (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html),
 * bracketed paste (`CSI 200 ~` … `CSI 201 ~`) and the `CSI … u` form that some terminals send for Shift+Enter.
 */

/** Names of keys that are not text. */
export type KeyName =
  | "enter"
  | "newline"
  | "tab"
  | "backspace"
  | "delete"
  | "up"
  | "down"
  | "left"
  | "right"
  | "word-left"
  | "word-right"
  | "home"
  | "end"
  | "escape"
  | "delete-word-left"
  | "delete-word-right"
  | "delete-to-start"
  | "delete-to-end"
  | "yank"
  | "transpose"
  | "history-previous"
  | "history-next"
  | "redraw"
  | "interrupt"
  | "end-of-input"
  | "undo"
  | "unknown";

/** One thing the user did. */
export type TerminalInput =
  | { type: "text"; text: string }
  | { type: "paste"; text: string }
  | { type: "key"; key: KeyName };

const ESC = "\x1b";
const PASTE_START = "\x1b[200~";
const PASTE_END = "\x1b[201~";
/** A CSI sequence longer than this is noise, not a key. */
const CSI_LENGTH_MAX = 32;
/** A paste is cut here (characters): far more than any context holds, and a lost end marker can't eat all memory. */
export const PASTE_LENGTH_MAX = 4 << 20;

const CONTROL: Record<string, KeyName> = {
  "\x01": "home",
  "\x02": "left",
  "\x03": "interrupt",
  "\x04": "end-of-input",
  "\x05": "end",
  "\x06": "right",
  "\x08": "backspace",
  "\x09": "tab",
  "\x0a": "enter", // programs that drive a terminal send \n where a keyboard sends \r
  "\x0b": "delete-to-end",
  "\x0c": "redraw",
  "\x0d": "enter",
  "\x0e": "history-next",
  "\x10": "history-previous",
  "\x14": "transpose",
  "\x15": "delete-to-start",
  "\x17": "delete-word-left",
  "\x19": "yank",
  "\x1f": "undo",
  "\x7f": "backspace",
};

const META: Record<string, KeyName> = {
  "\r": "newline",
  "\n": "newline",
  b: "word-left",
  f: "word-right",
  d: "delete-word-right",
  "\x7f": "delete-word-left",
  "\x08": "delete-word-left",
};

const CSI_LETTER: Record<string, KeyName> = { A: "up", B: "down", C: "right", D: "left", H: "home", F: "end" };
const CSI_TILDE: Record<string, KeyName> = { "1": "home", "3": "delete", "4": "end", "7": "home", "8": "end" };

/** A CSI sequence (without `ESC [`) as a key. Modifiers are 1 + bits of shift 1, alt 2, control 4. */
function csiKey(parameters: string, final: string): KeyName {
  const [first = "", second = "1", third = ""] = parameters.split(";");
  const modifiers = (Number.parseInt(second, 10) || 1) - 1;
  const byWord = (modifiers & 6) !== 0;
  if (final === "u") return first === "13" ? (modifiers === 0 ? "enter" : "newline") : "unknown";
  if (final === "~") {
    if (first === "27" && third === "13") return modifiers === 0 ? "enter" : "newline";
    if (first === "3" && byWord) return "delete-word-right";
    return CSI_TILDE[first] ?? "unknown";
  }
  const key = CSI_LETTER[final] ?? "unknown";
  if (byWord && key === "left") return "word-left";
  if (byWord && key === "right") return "word-right";
  return key;
}

/** Pasted text as it goes into a message: \n for line ends, tabs kept, every other control character dropped. */
export function cleanPaste(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/\r\n?/g, "\n").replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
}

/** Length of `text` without a tail that may be the beginning of `marker`. */
function withoutPartial(text: string, marker: string): number {
  for (let length = Math.min(marker.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(marker.slice(0, length))) return text.length - length;
  }
  return text.length;
}

/** Decodes a terminal's input; a sequence may be split over any number of `push`es. */
export class KeyDecoder {
  #utf8 = new TextDecoder();
  #pending = "";
  #paste: string[] | undefined;
  #pasteLength = 0;

  /** True when what came so far may be a key by itself (Escape) or the start of a longer sequence. */
  get isWaiting(): boolean {
    return this.#paste === undefined && this.#pending !== "";
  }

  /** Takes bytes as they were read and returns what is complete. */
  push(bytes: Uint8Array): TerminalInput[] {
    this.#pending += this.#utf8.decode(bytes, { stream: true });
    const out: TerminalInput[] = [];
    let progress = true;
    while (progress && this.#pending !== "") {
      progress = this.#paste === undefined ? this.#step(out) : this.#stepPaste(out);
    }
    return out;
  }

  /** No more bytes came for a moment: a waiting Escape is the Escape key. */
  flush(): TerminalInput[] {
    if (!this.isWaiting) return [];
    this.#pending = "";
    return [{ type: "key", key: "escape" }];
  }

  #stepPaste(out: TerminalInput[]): boolean {
    const end = this.#pending.indexOf(PASTE_END);
    const take = end >= 0 ? end : withoutPartial(this.#pending, PASTE_END);
    const room = Math.max(0, PASTE_LENGTH_MAX - this.#pasteLength);
    this.#paste!.push(this.#pending.slice(0, Math.min(take, room)));
    this.#pasteLength += take;
    this.#pending = this.#pending.slice(take);
    if (end < 0) return false;
    this.#pending = this.#pending.slice(PASTE_END.length);
    out.push({ type: "paste", text: cleanPaste(this.#paste!.join("")) });
    this.#paste = undefined;
    this.#pasteLength = 0;
    return true;
  }

  #step(out: TerminalInput[]): boolean {
    const text = this.#pending;
    const first = text[0];
    if (first === ESC) return this.#stepEscape(out);
    if (first < " " || first === "\x7f") {
      this.#pending = text.slice(1);
      out.push({ type: "key", key: CONTROL[first] ?? "unknown" });
      return true;
    }
    // deno-lint-ignore no-control-regex
    const end = text.search(/[\x00-\x1f\x7f]/);
    const take = end < 0 ? text.length : end;
    out.push({ type: "text", text: text.slice(0, take) });
    this.#pending = text.slice(take);
    return true;
  }

  #stepEscape(out: TerminalInput[]): boolean {
    const text = this.#pending;
    if (text.length === 1) return false;
    if (text.startsWith(PASTE_START)) {
      this.#pending = text.slice(PASTE_START.length);
      this.#paste = [];
      return true;
    }
    let length: number;
    let key: KeyName;
    if (text[1] === "[") {
      let end = 2;
      while (end < text.length && text[end] >= " " && text[end] <= "?") end++;
      if (end === text.length && end < CSI_LENGTH_MAX) return false;
      key = end < text.length ? csiKey(text.slice(2, end), text[end]) : "unknown";
      length = Math.min(end + 1, text.length);
    } else if (text[1] === "O") {
      if (text.length === 2) return false;
      key = CSI_LETTER[text[2]] ?? (text[2] === "M" ? "enter" : "unknown");
      length = 3;
    } else {
      const character = String.fromCodePoint(text.codePointAt(1)!);
      key = character === ESC ? "escape" : META[character] ?? "unknown";
      length = character === ESC ? 1 : 1 + character.length;
    }
    this.#pending = text.slice(length);
    out.push({ type: "key", key });
    return true;
  }
}
