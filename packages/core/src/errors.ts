/**
 * What went wrong, for programs.
 *
 * - `invalid_argument`: the caller passed something that can't be right
 * - `invalid_file`: bytes from outside are broken (truncated, hostile, inconsistent)
 * - `unsupported`: well-formed, but this engine or backend has no way to do it
 * - `not_found`: a file, model, tensor or library is missing
 * - `out_of_memory`: what was asked for does not fit
 * - `io`: the operating system refused
 * - `backend`: a native library reported a failure, or computed no numbers
 * - `internal`: a bug in this project
 */
export type ErrorCode =
  | "invalid_argument"
  | "invalid_file"
  | "unsupported"
  | "not_found"
  | "out_of_memory"
  | "io"
  | "backend"
  | "internal";

/** Where it went wrong and what to do about it. */
export interface ErrorDetails {
  /** File that was being read or written. */
  file?: string;
  /** Byte offset in that file. */
  offset?: number | bigint;
  /** One sentence: what the user can do next. */
  next?: string;
  /** The error that led to this one. */
  cause?: unknown;
}

/** The only error class that this project throws on purpose. The message is one line: what, where, what to do next. */
export class MllmError extends Error {
  /** Always "MllmError". */
  override readonly name = "MllmError";
  /** What kind of failure it is. */
  readonly code: ErrorCode;
  /** File that was being read or written. */
  readonly file?: string;
  /** Byte offset in that file. */
  readonly offset?: number | bigint;
  /** One sentence: what the user can do next. */
  readonly next?: string;
  readonly #what: string;

  /** `what` says in lower case what went wrong; where and what to do next are added from the details. */
  constructor(code: ErrorCode, what: string, details: ErrorDetails = {}) {
    const { file, offset, next, cause } = details;
    const where = file === undefined ? "" : ` (${file}${offset === undefined ? "" : ` at byte ${offset}`})`;
    super(
      oneLine(`${what}${where}${next === undefined ? "" : `. ${next}`}`),
      cause === undefined ? undefined : { cause },
    );
    this.#what = what;
    this.code = code;
    this.file = file;
    this.offset = offset;
    this.next = next;
  }

  /** The same error, naming the file that it is about unless it names one. */
  about(file: string): MllmError {
    if (this.file !== undefined) return this;
    return new MllmError(this.code, this.#what, { file, next: this.next, cause: this.cause });
  }
}

/** Why the operating system or Deno refused, in their words, without the call site that Deno adds. */
export function systemReason(error: unknown): string {
  if (error instanceof Deno.errors.NotCapable) return "Deno's permissions do not allow it";
  const text = oneLine(error instanceof Error ? error.message : String(error)).trim();
  return text.replace(/\s*\(os error \d+\).*$/, "").replace(/: (open|stat|rename|readfile|writefile|mkdir) .*$/, "");
}

/** `typeof` for messages, in which null is no object. */
export function typeName(value: unknown): string {
  return value === null ? "null" : typeof value;
}

/** Names and values from files end up in messages: no line breaks or terminal codes, and an end. */
function oneLine(text: string): string {
  const short = text.length <= MESSAGE_LENGTH_MAX
    ? text
    : `${text.slice(0, MESSAGE_LENGTH_MAX / 2)} … ${text.slice(-MESSAGE_LENGTH_MAX / 2)}`;
  // deno-lint-ignore no-control-regex
  return short.replaceAll(/[\x00-\x1f\x7f-\x9f]+/g, " ");
}

const MESSAGE_LENGTH_MAX = 1200;
