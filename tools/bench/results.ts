/** What a run of `bench:peers` found, as it is written to JSON. */
import type { Machine, Peaks } from "./machine.ts";
import type { PeerRun } from "./engines.ts";
import type { Roofline } from "./roofline.ts";

/** Values of all repetitions. */
export interface Samples {
  samples: number[];
  median: number;
  min: number;
  max: number;
}

/** One engine on one model. */
export interface EngineResult {
  engine: string;
  version: string;
  detail: string;
  /** Tokens per second by test name. */
  speeds: Record<string, Samples>;
  load_to_first_token_ms: Samples;
  /** Resident memory when the first token was known; older results lack it. */
  loaded_bytes?: Samples;
  peak_bytes: Samples;
  /** Weights as packed, and keys and values of the benchmark's context; of this engine alone. */
  needed_bytes?: number;
}

/** One model, all engines in turn. */
export interface ModelResult {
  /** Name of the file. */
  model: string;
  type: string;
  size_bytes: number;
  parameters: number;
  repetitions: number;
  /** Of the level and the number of threads that were used. */
  peaks: Peaks;
  engines: EngineResult[];
  roofline: Roofline[];
}

/** The file. */
export interface Results {
  date: string;
  machine: Machine;
  models: ModelResult[];
}

/** Median (of an even number the mean of the middle two), smallest and largest. Throws RangeError for no samples. */
export function samplesOf(samples: number[]): Samples {
  if (samples.length === 0) throw new RangeError("there are no samples");
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { samples, median, min: sorted[0], max: sorted.at(-1)! };
}

/** All repetitions of one engine together. */
export function engineResult(engine: string, runs: readonly PeerRun[]): EngineResult {
  const [{ version, detail, speeds, neededBytes }] = runs;
  return {
    engine,
    version,
    detail,
    speeds: Object.fromEntries(
      Object.keys(speeds).map((test) => [test, samplesOf(runs.map((run) => run.speeds[test]))]),
    ),
    load_to_first_token_ms: samplesOf(runs.map((run) => run.loadToFirstTokenMs)),
    loaded_bytes: samplesOf(runs.map((run) => run.loadedBytes)),
    peak_bytes: samplesOf(runs.map((run) => run.peakBytes)),
    needed_bytes: neededBytes,
  };
}

/** The model's type, and the level where it is not the machine's best. */
export function modelName({ type, peaks }: ModelResult, { levels }: Machine): string {
  return peaks.level === levels.at(-1) ? type : `${type} (${peaks.level})`;
}

/** Results with those of `newer` in place of older ones of the same model and level; another machine's are dropped. */
export function mergeResults(older: Results | undefined, newer: Results): Results {
  if (older?.machine.cpu !== newer.machine.cpu) return newer;
  const isNewer = ({ model, peaks }: ModelResult) =>
    newer.models.some((other) => other.model === model && other.peaks.level === peaks.level);
  return { ...newer, models: [...older.models.filter((entry) => !isNewer(entry)), ...newer.models] };
}
