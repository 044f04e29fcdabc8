/** Texts that the user gives as files or on stdin: UTF-8, within a limit, a byte-order mark being part of them. */
import { FileSource, MllmError } from "@mllm/core";
import type { Input } from "./host.ts";
import { UsageError } from "./options.ts";

/** Longest file, line or whole input that is read: far more than any context holds. */
const TEXT_BYTES_MAX = 64 << 20;

/**
 * The text that `bytes` of `file`, from its byte `offset` on, are in UTF-8. Throws `invalid_argument` that names the
 * first byte which can't be right.
 */
function utf8Text(bytes: Uint8Array, file: string, offset = 0): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    // Where a decoder puts U+FFFD, the bytes of its text differ from the given ones.
    const repaired = new TextEncoder().encode(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
    const wrong = repaired.findIndex((byte, i) => byte !== bytes[i]);
    throw new MllmError("invalid_argument", "this is not UTF-8 text", {
      file,
      offset: offset + wrong,
      next: "Give a text, in UTF-8",
      cause,
    });
  }
}

/**
 * The text of a file. Throws `not_found`, `io` saying why, `invalid_file` where it is a folder, pipe or device (which
 * might never end), and `invalid_argument` where it has more than `bytesMax` bytes or is not UTF-8.
 */
export function readTextFile(file: string, bytesMax = TEXT_BYTES_MAX): string {
  using source = new FileSource(file);
  if (source.size > bytesMax) {
    throw new MllmError("invalid_argument", `the file has ${source.size} bytes, more than ${bytesMax}`, { file });
  }
  return utf8Text(source.read(0, source.size), file);
}

/** Bytes that come in pieces. */
class Pieces {
  #pieces: Uint8Array[] = [];
  length = 0;

  /** Throws `invalid_argument` that says `what` has too many, and what to do `next`. */
  add(piece: Uint8Array, what: string, next: string): void {
    this.#pieces.push(piece.slice());
    this.length += piece.length;
    if (this.length > TEXT_BYTES_MAX) {
      throw new MllmError("invalid_argument", `${what} has more than 64 MiB`, { next });
    }
  }
  /** All of them, which are none then. */
  take(): Uint8Array {
    const bytes = new Uint8Array(this.length);
    let at = 0;
    for (const piece of this.#pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [];
    this.length = 0;
    return bytes;
  }
}

const LINE_END = 0x0a;

export interface LineOptions {
  /** Bytes that are no UTF-8 become U+FFFD: for lines that a person types. */
  repair?: boolean;
}

/**
 * The lines of an input, without their line ends; an unfinished last line counts. Throws `invalid_argument` where one
 * has more than 64 MiB or is not UTF-8.
 */
export async function* readLines(input: Input, { repair = false }: LineOptions = {}): AsyncGenerator<string> {
  const buffer = new Uint8Array(64 << 10);
  const pending = new Pieces(); // of the line that has no end yet
  let offset = 0;
  const line = () => {
    const bytes = pending.take();
    const text = repair ? new TextDecoder().decode(bytes) : utf8Text(bytes, "stdin", offset);
    offset += bytes.length + 1;
    return text;
  };
  const add = (piece: Uint8Array) => pending.add(piece, "a line of the input", "Put line ends into it");
  for (let count = await input.read(buffer); count !== null; count = await input.read(buffer)) {
    let rest = buffer.subarray(0, count);
    for (let end = rest.indexOf(LINE_END); end >= 0; end = rest.indexOf(LINE_END)) {
      add(rest.subarray(0, end));
      yield line().replace(/\r$/, "");
      rest = rest.subarray(end + 1);
    }
    add(rest);
  }
  if (pending.length > 0) yield line();
}

/** Everything there is to read, as text. Throws `invalid_argument` for more than 64 MiB, or what is not UTF-8. */
export async function readAll(input: Input): Promise<string> {
  const buffer = new Uint8Array(64 << 10);
  const all = new Pieces();
  for (let count = await input.read(buffer); count !== null; count = await input.read(buffer)) {
    all.add(buffer.subarray(0, count), "the input", "Give less");
  }
  return utf8Text(all.take(), "stdin");
}

/** The text of a file, or for `-` all of stdin, but a last line end. Throws as `readTextFile` and `readAll`. */
export async function givenText(file: string, input: Input): Promise<string> {
  const text = file === "-" ? await readAll(input) : readTextFile(file);
  return text.replace(/\r?\n$/, "");
}

/**
 * A prompt given as an option: the text itself, or for `-` all of stdin but a last line end. Throws UsageError where
 * that is empty.
 */
export async function givenPrompt(text: string, input: Input): Promise<string> {
  const prompt = text === "-" ? await givenText(text, input) : text;
  if (prompt !== "") return prompt;
  throw new UsageError(text === "-" ? "--prompt - found nothing on stdin" : "--prompt is empty");
}
