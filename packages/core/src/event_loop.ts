/**
 * Leaving JavaScript's thread to others within long work on it.
 * @module
 */

/** Turns that long work gives the event loop: its timers, keys and signals come there. */
export class EventLoopTurns {
  /** When the thread was last free, by `performance.now()`; who leaves it in another way sets this. */
  lastMs: number = performance.now();

  /** The thread counts as free at this moment. */
  constructor(
    /** Milliseconds that the thread may be held before it is left to others. */
    readonly heldMs: number,
  ) {}

  /** Gives the event loop a turn when the thread was held for so long, at a cost of 1 to 2 ms; else does nothing. */
  async give(): Promise<void> {
    if (performance.now() - this.lastMs < this.heldMs) return;
    await new Promise((resolve) => setTimeout(resolve, 0)); // signals wait a dozen turns of setImmediate
    this.lastMs = performance.now();
  }
}
