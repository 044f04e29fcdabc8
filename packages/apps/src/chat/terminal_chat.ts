/** The chat on a terminal. */
import { COMMAND_WORDS, errorLine } from "../errors.ts";
import { type Host, SIGNAL_EXIT } from "../host.ts";
import { History, type HistoryFile } from "../terminal/history.ts";
import { KeyDecoder, type TerminalInput } from "../terminal/keys.ts";
import { type EditResult, LineEditor } from "../terminal/line_editor.ts";
import { ProgressBar } from "../terminal/progress.ts";
import { type Style, styleFor } from "../terminal/style.ts";
import { WordWrapper } from "../terminal/word_wrap.ts";
import { type ChatSwitches, type CommandContext, completeCommand, messageOf, runCommand } from "./commands.ts";
import { endNote, isStoppedEarly, statsLine, STOPPED_EARLY } from "./stats_line.ts";
import type { Talk } from "./talk.ts";

/** How long (ms) an Escape waits for the rest of a sequence. */
const ESCAPE_WAIT_MS = 50;
/** Reading the prompt longer than this (ms) gets a progress bar. */
const PROMPT_BAR_MS = 300;
/** A reply that does not stop after this many Ctrl+C is left together with the program. */
const INTERRUPTS_MAX = 3;
/** Inputs kept that were typed during a reply. */
const TYPE_AHEAD_MAX = 10_000;
/** Inputs read at once: a long paste comes in few pieces. */
const READ_BYTES = 64 << 10;

const ENTER_MODES = "\x1b[?2004h"; // bracketed paste
const LEAVE_MODES = "\x1b[?2004l\x1b[?25h\x1b[0m";

export interface TerminalChatOptions {
  /** Paragraphs shown before the first prompt. */
  greeting: readonly { text: string; style: keyof Style }[];
  /** Where history could be kept; undefined where this user has no such place. */
  historyFile?: HistoryFile;
  /** Whether it is kept from the start. */
  keepsHistory: boolean;
}

/** Runs the chat until the user leaves; answers with the exit code. The terminal is as before at every end. */
export async function runTerminalChat(host: Host, talk: Talk, options: TerminalChatOptions): Promise<number> {
  const chat = new TerminalChat(host, talk, options);
  const stops = [
    host.onSignal("SIGWINCH", () => chat.resize()),
    host.onSignal("SIGINT", () => chat.take({ type: "key", key: "interrupt" })),
    host.onSignal("SIGCONT", () => chat.resume()),
    ...(["SIGTERM", "SIGHUP"] as const).map((signal) =>
      host.onSignal(signal, () => {
        chat.restore();
        host.exit(SIGNAL_EXIT[signal]);
      })
    ),
  ];
  const restore = () => chat.restore();
  globalThis.addEventListener("unload", restore);
  try {
    return await chat.run();
  } finally {
    chat.restore();
    globalThis.removeEventListener("unload", restore);
    for (const stop of stops) stop();
  }
}

class TerminalChat {
  #host: Host;
  #talk: Talk;
  #options: TerminalChatOptions;
  #style: Style;
  #editor: LineEditor;
  #history: History;
  #decoder = new KeyDecoder();
  #switches: ChatSwitches;
  #commands: CommandContext;
  #typedAhead: TerminalInput[] = [];
  #answer: ((result: EditResult) => void) | undefined;
  #reply: { abort: AbortController; interrupts: number; showStopping: () => void } | undefined;
  #inputEnded = false;
  #toldHistoryFailure = false;
  #isRaw = false;
  /** Ctrl+C was the last that was typed: another leaves. */
  #leaving = false;

  constructor(host: Host, talk: Talk, options: TerminalChatOptions) {
    this.#host = host;
    this.#talk = talk;
    this.#options = options;
    this.#style = styleFor(host.stdout.isTerminal, host.env);
    this.#history = new History(options.keepsHistory ? options.historyFile : undefined);
    this.#switches = { stats: true, wordwrap: true, history: options.keepsHistory };
    this.#editor = new LineEditor(
      { write: (text) => host.stdout.write(text), columns: () => host.columns(), rows: () => host.rows() },
      { history: this.#history, complete: completeCommand },
    );
    this.#commands = {
      talk,
      switches: this.#switches,
      initialSwitches: { ...this.#switches },
      hasHistoryFile: options.historyFile !== undefined,
      print: (text) => this.#print(text),
      ownFiles: new Set(),
      home: host.env("HOME") ?? host.env("USERPROFILE"),
    };
  }

  async run(): Promise<number> {
    this.#enter();
    for (const { text, style } of this.#options.greeting) this.#print(text, this.#style[style]);
    this.#pump();
    while (true) {
      this.#tellHistoryFailure();
      const result = await this.#nextLine();
      if (result.type === "end") break;
      if (result.type === "interrupt") {
        if (this.#leaving) break;
        this.#leaving = true;
        this.#print("Ctrl+C again, Ctrl+D or /bye leaves.", this.#style.dim);
        continue;
      }
      if (await this.#say(result.text)) break;
    }
    return 0;
  }

  /** Says once that the history file can't be read or written. */
  #tellHistoryFailure(): void {
    const failure = this.#options.historyFile?.failure;
    if (failure === undefined || this.#toldHistoryFailure) return;
    this.#toldHistoryFailure = true;
    this.#print(`What you type is not kept for the next time: ${failure}`, this.#style.dim);
  }

  /** An input of the user, at any time. */
  take(input: TerminalInput): void {
    const isInterrupt = input.type === "key" && input.key === "interrupt";
    if (isInterrupt && this.#reply !== undefined) return this.#interrupt();
    if (!isInterrupt) this.#leaving = false;
    if (this.#answer === undefined) {
      if (this.#typedAhead.length < TYPE_AHEAD_MAX) this.#typedAhead.push(input);
      return;
    }
    const result = this.#editor.handle(input);
    if (result !== undefined) this.#finish(result);
  }

  resize(): void {
    if (this.#answer !== undefined) this.#editor.resize();
  }

  /** Back from being stopped (Ctrl+Z from outside): the shell has changed the terminal's mode meanwhile. */
  resume(): void {
    if (!this.#isRaw) return;
    this.#isRaw = false;
    this.#enter();
    if (this.#answer !== undefined) this.#editor.redraw();
  }

  restore(): void {
    if (!this.#isRaw) return;
    this.#isRaw = false;
    try {
      this.#host.stdout.write(LEAVE_MODES);
    } catch {
      // The terminal is gone.
    }
    try {
      this.#host.stdin.setRaw(false);
    } catch {
      // As above.
    }
  }

  #enter(): void {
    this.#host.stdin.setRaw(true);
    this.#isRaw = true;
    this.#host.stdout.write(ENTER_MODES);
  }

  /** Prints plain text, wrapped at words, in a style. */
  #print(text: string, style: (text: string) => string = (plain) => plain): void {
    const wrapper = new WordWrapper(() => this.#host.columns());
    this.#host.stdout.write(style(wrapper.push(text)) + "\r\n");
  }

  #interrupt(): void {
    const reply = this.#reply!;
    reply.abort.abort();
    reply.showStopping();
    if (++reply.interrupts < INTERRUPTS_MAX) return;
    this.restore();
    this.#host.stdout.write("\n");
    this.#host.exit(SIGNAL_EXIT.SIGINT);
  }

  #finish(result: EditResult): void {
    const answer = this.#answer!;
    this.#answer = undefined;
    answer(result);
  }

  #nextLine(): Promise<EditResult> {
    return new Promise((resolve) => {
      this.#answer = resolve;
      this.#editor.begin();
      const typed = this.#typedAhead;
      this.#typedAhead = [];
      for (const input of typed) this.take(input); // what follows the end of this line waits again
      if (this.#inputEnded && this.#answer !== undefined) {
        this.#host.stdout.write("\r\n");
        this.#finish({ type: "end" });
      }
    });
  }

  /** Reads keys until the input ends, whatever else goes on. */
  async #pump(): Promise<void> {
    const buffer = new Uint8Array(READ_BYTES);
    let timer: ReturnType<typeof setTimeout> | undefined;
    while (true) {
      const count = await this.#host.stdin.read(buffer).catch(() => null);
      clearTimeout(timer);
      if (count === null) break;
      for (const input of this.#decoder.push(buffer.subarray(0, count))) this.take(input);
      if (this.#decoder.isWaiting) {
        timer = setTimeout(() => {
          for (const input of this.#decoder.flush()) this.take(input);
        }, ESCAPE_WAIT_MS);
      }
    }
    this.#inputEnded = true;
    this.#reply?.abort.abort();
    if (this.#answer !== undefined) this.#finish({ type: "end" });
  }

  /** A message or a command; answers true to leave. */
  async #say(text: string): Promise<boolean> {
    if (text.trim() === "") return false;
    try {
      const message = messageOf(text);
      if (message === undefined) {
        const leave = await runCommand(this.#commands, text);
        this.#history.setFile(this.#switches.history ? this.#options.historyFile : undefined);
        return leave;
      }
      await this.#replyTo(message);
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) throw error;
      this.#print(errorLine(error, COMMAND_WORDS));
    } finally {
      this.#reply = undefined;
    }
    return false;
  }

  async #replyTo(text: string): Promise<void> {
    const { stdout, stderr } = this.#host;
    const abort = new AbortController();
    const wrapper = new WordWrapper(this.#switches.wordwrap ? () => this.#host.columns() : () => Infinity);
    using bar = new ProgressBar(stderr, () => this.#host.columns());
    const startMs = performance.now();
    let isFirst = true;
    let last = "\n";
    let read = { done: 0, total: 1 };
    const showReading = () =>
      isFirst && bar.update(abort.signal.aborted ? "stopping" : "reading", read.done, read.total);
    this.#reply = { abort, interrupts: 0, showStopping: showReading };
    const show = (piece: string) => {
      bar.done();
      const visible = isFirst ? piece.trimStart() : piece; // templates of thinking models begin with empty lines
      if (visible === "") return;
      isFirst = false;
      last = visible;
      stdout.write(wrapper.push(visible));
    };
    let stats;
    const waiting = setTimeout(showReading, PROMPT_BAR_MS);
    try {
      stats = await this.#talk.reply(text, {
        signal: abort.signal,
        onText: show,
        onPrompt: (done, total) => {
          read = { done, total };
          if (performance.now() - startMs > PROMPT_BAR_MS && done < total) showReading();
        },
      });
    } finally {
      clearTimeout(waiting);
      bar.done();
      if (!last.endsWith("\n")) stdout.write("\r\n");
    }
    if (stats === undefined || isStoppedEarly(stats)) {
      // Stopped while the prompt was being read: there is no speed to tell.
      if (abort.signal.aborted) this.#print(`(${STOPPED_EARLY}; arrow up brings it back)`, this.#style.dim);
      return;
    }
    const note = endNote(stats, this.#talk.model);
    const clear = stats.contextFull ? "; /clear starts again" : "";
    if (note !== undefined) this.#print(`(${note}${clear})`, this.#style.dim);
    if (this.#switches.stats) this.#print(statsLine(stats), this.#style.dim);
    this.#print("");
  }
}
