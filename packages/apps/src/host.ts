/**
 * The world as a program sees it: standard streams, environment, window, signals. Everything in `apps` gets it passed,
 * so that tests can be the world.
 */
import { fileURLToPath } from "node:url";
import { MllmError } from "@mllm/core";

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
