/**
 * The world as a program sees it: standard streams, environment, window, signals. Everything in `apps` gets it passed,
 * so that tests can be the world.
 */
import { fileURLToPath } from "node:url";
import { MllmError, systemReason } from "@mllm/core";
import { UsageError } from "./options.ts";

/** Where text goes. */
export interface Output {
  /** Whether a person sits at the other end. */
  readonly isTerminal: boolean;
  /** Writes all of it. Throws `BrokenPipe` when nobody reads any more. */
  write(text: string): void;
}

/** Where bytes come from. */
export interface Input {
  /** Whether a person sits at the other end. */
  readonly isTerminal: boolean;
  /** As `Deno.stdin.read`: bytes read, or null at the end. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Switches the terminal's own line editing and echo off or on. */
  setRaw(on: boolean): void;
}

/** Signals that a program listens to. */
export type HostSignal = "SIGINT" | "SIGTERM" | "SIGHUP" | "SIGWINCH" | "SIGCONT";

/** The world of a program. */
export interface Host {
  /** Standard input. */
  readonly stdin: Input;
  /** Standard output: results. */
  readonly stdout: Output;
  /** Standard error: everything else. */
  readonly stderr: Output;
  /** Size of the window; 80 x 24 where there is none. */
  columns(): number;
  /** As `columns`, for its height. */
  rows(): number;
  /** Undefined also where reading it is not permitted. */
  readonly env: (name: string) => string | undefined;
  /** Listens; returns a function that stops listening. */
  onSignal(signal: HostSignal, listener: () => void): () => void;
  /** Ends the process at once. */
  exit(code: number): never;
}

/** Exit code of a program that a signal ended: 128 + its number. */
export const SIGNAL_EXIT = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

function writeAll(name: string, stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(stream.writeSync(bytes));
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) throw error;
      // The pipe's reader is slow and the pipe does not block: wait a moment and go on.
      if (!(error instanceof Deno.errors.WouldBlock)) {
        throw new MllmError("io", `${name} can't be written: ${(error as Error).message}`, { cause: error });
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}

/** The real world. */
export function denoHost(): Host {
  const size = () => {
    try {
      return Deno.consoleSize();
    } catch {
      return { columns: 80, rows: 24 };
    }
  };
  const output = (name: "stdout" | "stderr"): Output => ({
    isTerminal: Deno[name].isTerminal(),
    write: (text) => writeAll(name, Deno[name], text),
  });
  return {
    stdin: {
      isTerminal: Deno.stdin.isTerminal(),
      read: (buffer) => Deno.stdin.read(buffer),
      setRaw: (on) => Deno.stdin.setRaw(on),
    },
    stdout: output("stdout"),
    stderr: output("stderr"),
    columns: () => size().columns || 80, // a terminal that does not know its size says 0
    rows: () => size().rows || 24,
    env: (name) => {
      try {
        return Deno.env.get(name);
      } catch {
        return undefined;
      }
    },
    onSignal: (signal, listener) => {
      if (Deno.build.os === "windows" && signal !== "SIGINT") return () => {};
      Deno.addSignalListener(signal, listener);
      return () => Deno.removeSignalListener(signal, listener);
    },
    exit: (code) => Deno.exit(code),
  };
}

/**
 * Goes to the folder in which the user started: `deno task` runs its command in the folder of deno.json and leaves the
 * user's own in INIT_CWD. Paths that the user gives are relative to that.
 */
export function enterStartFolder(env: Host["env"]): void {
  const folder = env("INIT_CWD");
  const checkout = fileURLToPath(new URL("../../..", import.meta.url)).replace(/[\\/]$/, "");
  if (folder === undefined || Deno.build.standalone || Deno.cwd() !== checkout) return;
  try {
    Deno.chdir(folder);
  } catch {
    // It is gone: the checkout is as good as any other place.
  }
}

/** Longest line, or whole input, that is read, in UTF-16 units: far more than any context holds. */
const TEXT_LENGTH_MAX = 64 << 20;

/**
 * The lines of an input, without their line ends; an unfinished last line counts. Throws `invalid_argument` where one
 * has more than 64 Mi characters.
 */
export async function* readLines(input: Input): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(64 << 10);
  let pending: string[] = []; // pieces of the line that has no end yet
  let length = 0;
  while (true) {
    const count = await input.read(buffer);
    const piece = count === null ? decoder.decode() : decoder.decode(buffer.subarray(0, count), { stream: true });
    const [first, ...more] = piece.split("\n");
    pending.push(first);
    length += first.length;
    if (length > TEXT_LENGTH_MAX) {
      throw new MllmError("invalid_argument", "a line of the input has more than 64 Mi characters", {
        next: "Put line ends into it",
      });
    }
    for (const next of more) {
      const line = pending.join("");
      yield line.endsWith("\r") ? line.slice(0, -1) : line;
      pending = [next];
      length = next.length;
    }
    if (count === null) break;
  }
  if (length > 0) yield pending.join("");
}

const withoutLastEnd = (text: string): string => text.replace(/\r?\n$/, "");

/** The text of a file, or for `-` all of stdin, but a last line end. Throws `not_found`, or `io` saying why. */
export async function givenText(file: string, input: Input): Promise<string> {
  if (file === "-") return withoutLastEnd(await readAll(input));
  try {
    return withoutLastEnd(await Deno.readTextFile(file));
  } catch (error) {
    const isMissing = error instanceof Deno.errors.NotFound;
    const what = isMissing ? "there is no such file" : `the file can't be read: ${systemReason(error)}`;
    throw new MllmError(isMissing ? "not_found" : "io", what, { file, cause: error });
  }
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

/** Everything there is to read, as text. Throws `invalid_argument` for more than 64 Mi characters. */
export async function readAll(input: Input): Promise<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(64 << 10);
  let text = "";
  for (let count = await input.read(buffer); count !== null; count = await input.read(buffer)) {
    text += decoder.decode(buffer.subarray(0, count), { stream: true });
    if (text.length > TEXT_LENGTH_MAX) {
      throw new MllmError("invalid_argument", "the input has more than 64 Mi characters", { next: "Give less" });
    }
  }
  return text + decoder.decode();
}
