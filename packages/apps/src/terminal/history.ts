/** Earlier messages, walked with the up and down keys and kept between runs. */

import { systemReason } from "@mllm/core";

/** Entries kept, in memory and in the file. */
export const HISTORY_ENTRIES_MAX = 1000;
/** A message longer than this (characters) is not worth a place in a history file. */
const ENTRY_LENGTH_MAX = 64 << 10;
/** A history file larger than this (bytes) is not ours: it is left alone and not read. */
const FILE_BYTES_MAX = 64 << 20;

/** Earlier messages with a place in them, and the draft that was being written when walking began. */
export class History {
  #entries: string[];
  #index: number;
  #draft = "";
  #file?: HistoryFile;

  constructor(file?: HistoryFile) {
    this.#file = file;
    this.#entries = file?.read() ?? [];
    this.#index = this.#entries.length;
  }

  get entries(): readonly string[] {
    return this.#entries;
  }

  /** Adds what was sent; a repetition of the last entry and blank text are not kept. */
  add(text: string): void {
    if (text.trim() !== "" && text !== this.#entries.at(-1) && text.length <= ENTRY_LENGTH_MAX) {
      this.#entries.push(text);
      if (this.#entries.length > HISTORY_ENTRIES_MAX) this.#entries.shift();
      this.#file?.append(text);
    }
    this.#index = this.#entries.length;
    this.#draft = "";
  }

  /** Stops writing to the file, or starts again. */
  setFile(file: HistoryFile | undefined): void {
    this.#file = file;
  }

  /** One entry back from `current`; undefined at the oldest. */
  previous(current: string): string | undefined {
    if (this.#index === 0) return undefined;
    if (this.#index === this.#entries.length) this.#draft = current;
    return this.#entries[--this.#index];
  }

  /** One entry forward, at last the draft; undefined when already there. */
  next(): string | undefined {
    if (this.#index === this.#entries.length) return undefined;
    this.#index++;
    return this.#index === this.#entries.length ? this.#draft : this.#entries[this.#index];
  }
}

/**
 * A file of entries, one JSON string per line, so that an entry may have many lines. Readable by its owner only.
 * A history that can't be read or written is not worth stopping a chat for: the first failure is kept in `failure`.
 */
export class HistoryFile {
  readonly path: string;
  failure: string | undefined;
  #lines = 0;

  constructor(path: string) {
    this.path = path;
  }

  read(): string[] {
    try {
      if (Deno.statSync(this.path).size > FILE_BYTES_MAX) {
        this.failure = `${this.path} is larger than a history gets; it is left alone`;
        return [];
      }
      const entries: string[] = [];
      for (const line of Deno.readTextFileSync(this.path).split("\n")) {
        const entry = parseEntry(line);
        if (entry !== undefined) entries.push(entry);
      }
      this.#lines = entries.length;
      return entries.slice(-HISTORY_ENTRIES_MAX);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) this.#fail(error);
      return [];
    }
  }

  append(entry: string): void {
    if (this.failure !== undefined) return;
    try {
      const folder = this.path.replace(/[\\/][^\\/]*$/, "");
      Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
      Deno.writeTextFileSync(this.path, `${JSON.stringify(entry)}\n`, { append: true, mode: 0o600 });
      this.#lines++;
      if (this.#lines > 2 * HISTORY_ENTRIES_MAX) this.#compact();
    } catch (error) {
      this.#fail(error);
    }
  }

  #compact(): void {
    const text = this.read().map((entry) => `${JSON.stringify(entry)}\n`).join("");
    const temporary = `${this.path}.${crypto.randomUUID()}`;
    Deno.writeTextFileSync(temporary, text, { mode: 0o600 });
    Deno.renameSync(temporary, this.path);
    this.#lines = HISTORY_ENTRIES_MAX;
  }

  #fail(error: unknown): void {
    this.failure = `${this.path}: ${systemReason(error)}`;
  }
}

function parseEntry(line: string): string | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "string" && value !== "" ? value : undefined;
  } catch {
    return undefined; // a line torn by a crash, or not ours
  }
}

/**
 * Where this user's state goes: `$XDG_STATE_HOME/mllm` or `~/.local/state/mllm` (XDG Base Directory Specification),
 * `~/Library/Application Support/mllm` on macOS, `%LOCALAPPDATA%\mllm` on Windows; undefined without a home.
 */
export function stateFolder(env: (name: string) => string | undefined, os: string = Deno.build.os): string | undefined {
  const home = env("HOME");
  if (os === "windows") {
    const local = env("LOCALAPPDATA") ?? env("USERPROFILE");
    return local ? `${local}\\mllm` : undefined;
  }
  if (os === "darwin") return home ? `${home}/Library/Application Support/mllm` : undefined;
  const xdg = env("XDG_STATE_HOME");
  if (xdg && xdg.startsWith("/")) return `${xdg}/mllm`;
  return home ? `${home}/.local/state/mllm` : undefined;
}
