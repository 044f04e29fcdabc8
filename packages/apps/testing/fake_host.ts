/** A world for tests: what is typed is given, what is printed is kept. */
import type { Host, HostSignal } from "../src/host.ts";
import { TestScreen } from "./screen.ts";

/** Thrown by `exit`. */
export class ExitSignal extends Error {
  constructor(readonly code: number) {
    super(`exit ${code}`);
  }
}

export interface FakeHostOptions {
  stdinTerminal?: boolean;
  stdoutTerminal?: boolean;
  stderrTerminal?: boolean;
  env?: Record<string, string>;
  columns?: number;
  rows?: number;
  /** Everything on stdin, then its end. Without it, `type` and `end` feed it. */
  input?: string;
}

export class FakeHost implements Host {
  readonly screen: TestScreen;
  readonly rawModes: boolean[] = [];
  out = "";
  err = "";
  readonly stdin;
  readonly stdout;
  readonly stderr;
  readonly #env: Record<string, string>;
  readonly #listeners = new Map<HostSignal, Set<() => void>>();
  #queue: (Uint8Array | null)[] = [];
  #reader: (() => void) | undefined;

  constructor(options: FakeHostOptions = {}) {
    const { columns = 80, rows = 24, env = {}, input } = options;
    this.#env = env;
    this.screen = new TestScreen(columns, rows);
    if (input !== undefined) {
      this.type(input);
      this.end();
    }
    this.stdin = {
      isTerminal: options.stdinTerminal ?? false,
      read: (buffer: Uint8Array) => this.#read(buffer),
      setRaw: (on: boolean) => void this.rawModes.push(on),
    };
    this.stdout = {
      isTerminal: options.stdoutTerminal ?? false,
      write: (text: string) => {
        this.out += text;
        if (options.stdoutTerminal) this.screen.write(text);
      },
    };
    this.stderr = {
      isTerminal: options.stderrTerminal ?? false,
      write: (text: string) => {
        this.err += text;
        if (options.stderrTerminal) this.screen.write(text);
      },
    };
  }

  columns(): number {
    return this.screen.columns;
  }
  rows(): number {
    return this.screen.rows;
  }
  readonly env = (name: string): string | undefined => this.#env[name];
  onSignal(signal: HostSignal, listener: () => void): () => void {
    const set = this.#listeners.get(signal) ?? new Set();
    this.#listeners.set(signal, set.add(listener));
    return () => set.delete(listener);
  }
  exit(code: number): never {
    throw new ExitSignal(code);
  }

  /** Delivers a signal. */
  signal(signal: HostSignal): void {
    for (const listener of this.#listeners.get(signal) ?? []) listener();
  }
  get listenerCount(): number {
    return [...this.#listeners.values()].reduce((sum, set) => sum + set.size, 0);
  }
  /** Bytes for stdin; one call is one read. */
  type(text: string): void {
    this.#queue.push(new TextEncoder().encode(text));
    this.#reader?.();
  }
  end(): void {
    this.#queue.push(null);
    this.#reader?.();
  }
  /** Waits until the screen shows `text`. */
  async shows(text: string, timeoutMs = 5000): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    while (!this.screen.text().includes(text)) {
      if (performance.now() > endMs) throw new Error(`"${text}" is not on the screen:\n${this.screen.text()}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  async #read(buffer: Uint8Array): Promise<number | null> {
    while (this.#queue.length === 0) {
      await new Promise<void>((resolve) => this.#reader = resolve);
    }
    const bytes = this.#queue[0];
    if (bytes === null) return null;
    const count = Math.min(bytes.length, buffer.length);
    buffer.set(bytes.subarray(0, count));
    if (count === bytes.length) this.#queue.shift();
    else this.#queue[0] = bytes.subarray(count);
    return count;
  }
}
