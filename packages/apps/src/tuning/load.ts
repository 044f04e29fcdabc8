/** Whether this machine is ours at the moment. */
import process from "node:process";
import type { Backend, Program } from "@mllm/core";
import { LayersWorkload } from "./workloads.ts";

/** Looks whether other programs keep processors busy. */
export interface LoadWatch extends Disposable {
  /** Whether all threads get their processors now. */
  isQuiet(): boolean;
}

/** Rows of activations that give every thread of any machine enough to do. */
const ROWS = 64;
const WARM_UP_MS = 5;
/** Windows counts in ticks of 15.6 ms: a thread that runs all of 100 ms and more has 85 % of them in whole ticks. */
const LOOK_MS = Deno.build.os === "windows" ? 100 : 15;
/** Of the time of all threads, so much has to be computed; a worker that falls asleep is not all of a program's load. */
const SHARE_MIN = 0.85;

const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/**
 * Keeps all threads of a backend busy for some milliseconds, and looks how much time of processors the process got. It
 * tells any system's other programs without asking the system for them. More threads than processors are never quiet.
 */
export class ProcessorWatch implements LoadWatch {
  readonly #layers: LayersWorkload;
  readonly #program: Program;
  readonly #threads: number;

  constructor(backend: Backend) {
    this.#threads = backend.threads;
    this.#layers = new LayersWorkload(backend, "q8_0", [1024, 3072], 1);
    this.#program = this.#layers.capture(ROWS);
  }

  isQuiet(): boolean {
    this.#runFor(WARM_UP_MS); // workers may be asleep
    const [startMs, startCpuMs] = [performance.now(), cpuMs()];
    this.#runFor(LOOK_MS);
    return cpuMs() - startCpuMs >= SHARE_MIN * this.#threads * (performance.now() - startMs);
  }

  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
    this.#layers[Symbol.dispose]();
  }

  #runFor(ms: number): void {
    const endMs = performance.now() + ms;
    while (performance.now() < endMs) this.#layers.run(this.#program, { tokens: ROWS, position: 0 });
  }
}
