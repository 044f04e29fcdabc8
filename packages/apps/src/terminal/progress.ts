/** A progress bar on one row of a terminal. */
import { type Host, SIGNAL_EXIT } from "../host.ts";

/** Drawings a second, at most. */
const DRAWS_PER_SECOND_MAX = 20;
const BAR_COLUMNS = 24;

/** What a bar writes to. */
export interface ProgressOutput {
  readonly isTerminal: boolean;
  write(text: string): void;
}

/** Draws progress where there is a terminal, and nothing elsewhere. `done` removes the bar. */
export class ProgressBar implements Disposable {
  #output: ProgressOutput;
  #columns: () => number;
  #lastMs = -Infinity;
  #isDrawn = false;
  #what = "";

  constructor(output: ProgressOutput, columns: () => number) {
    this.#output = output;
    this.#columns = columns;
  }

  /** `done` and `total` in any one unit; `what` says what is being done. */
  update(what: string, done: number, total: number): void {
    if (!this.#output.isTerminal) return;
    const nowMs = performance.now();
    const isSoon = nowMs - this.#lastMs < 1000 / DRAWS_PER_SECOND_MAX;
    if (isSoon && done < total && what === this.#what) return;
    this.#lastMs = nowMs;
    this.#what = what;
    const part = total > 0 ? Math.max(0, Math.min(1, done / total)) : 0;
    const full = Math.round(part * BAR_COLUMNS);
    const bar = "█".repeat(full) + "░".repeat(BAR_COLUMNS - full);
    const percent = `${Math.floor(part * 100)}%`.padStart(4);
    const room = Math.max(0, this.#columns() - BAR_COLUMNS - percent.length - 3);
    const label = what.length > room ? what.slice(0, room) : what;
    this.#output.write(`\r\x1b[K${label} ${bar}${percent}`);
    this.#isDrawn = true;
  }

  /** Takes the bar away. */
  done(): void {
    if (this.#isDrawn) this.#output.write("\r\x1b[K");
    this.#isDrawn = false;
  }

  [Symbol.dispose](): void {
    this.done();
  }
}

/** Works with a bar on stderr, where that is a terminal. Ctrl+C takes the bar away and ends the program. */
export async function withBar<T>(host: Host, work: (bar: ProgressBar) => Promise<T>): Promise<T> {
  using bar = new ProgressBar(host.stderr, () => host.columns());
  const stopListening = host.onSignal("SIGINT", () => {
    bar.done();
    host.exit(SIGNAL_EXIT.SIGINT);
  });
  try {
    return await work(bar);
  } finally {
    stopListening();
  }
}
