import { MllmError } from "@mllm/core";
import { checkNames, shown } from "../check_options.ts";
import { Random } from "./random.ts";
import { countTopP, penalize } from "./transforms.ts";

/** Settings of a Sampler; each has a value that switches it off. */
export interface SamplingOptions {
  /** Above 1 flattens, below 1 sharpens; 0 takes the most probable token. Default 0.8. */
  temperature: number;
  /** Only the k most probable tokens; 0 is off. Default 40. */
  topK: number;
  /** Only the most probable tokens whose probabilities sum up to this; 1 is off. Default 0.95. */
  topP: number;
  /** Only tokens with at least this share of the highest probability; 0 is off. Default 0.05. */
  minP: number;
  /** Divides positive logits of earlier tokens, multiplies negative ones; 1 is off. Default 1. */
  repetitionPenalty: number;
  /** Subtracted from a token's logit for each earlier occurrence; 0 is off. Default 0. */
  frequencyPenalty: number;
  /** Subtracted from the logit of each token that occurred; 0 is off. Default 0. */
  presencePenalty: number;
  /** How many of the last tokens the penalties look at; -1 is all of them. Default 64. */
  penaltyLastN: number;
  /** Start of the random numbers: the same seed gives the same tokens. Default: drawn anew for each Sampler. */
  seed: number;
}

/** Settings with nothing left out but perhaps the seed, which the Sampler then draws. */
export type CheckedSampling = Omit<SamplingOptions, "seed"> & { seed?: number };

/** llama.cpp's defaults, for models that bring none. */
export const samplingDefaults: Readonly<Omit<SamplingOptions, "seed">> = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  penaltyLastN: 64,
};

/** Which numbers a setting may be. */
export interface NumberRange {
  /** The least, itself included unless `aboveMin`. */
  readonly min: number;
  /** The greatest. */
  readonly max: number;
  /** No fractions. */
  readonly whole?: boolean;
  /** Greater than `min`. */
  readonly aboveMin?: boolean;
}

/** What the settings may be. */
export const samplingRanges: Readonly<Record<keyof SamplingOptions, NumberRange>> = {
  temperature: { min: 0, max: 1e6 },
  topK: { min: 0, max: 2 ** 31 - 1, whole: true },
  topP: { min: 0, max: 1 },
  minP: { min: 0, max: 1 },
  repetitionPenalty: { min: 0, max: 1e6, aboveMin: true },
  frequencyPenalty: { min: -1e6, max: 1e6 },
  presencePenalty: { min: -1e6, max: 1e6 },
  penaltyLastN: { min: -1, max: 2 ** 31 - 1, whole: true },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, whole: true },
};

/** Whether the value is a number of the range. */
export function isInRange(value: unknown, { min, max, whole, aboveMin }: NumberRange): value is number {
  if (typeof value !== "number" || (whole && !Number.isSafeInteger(value))) return false;
  return value >= min && value <= max && !(aboveMin && value === min);
}

/** "a whole number from 0 to 2147483647", for messages. */
export function describeRange({ min, max, whole, aboveMin }: NumberRange): string {
  const kind = whole ? "a whole number" : "a number";
  return `${kind} ${aboveMin ? "above" : "from"} ${min} to ${max}`;
}

/**
 * Fills in the defaults and checks every setting.
 *
 * @throws MllmError `invalid_argument` naming the setting, its value and its range
 */
export function checkSamplingOptions(options: Partial<SamplingOptions>): CheckedSampling {
  checkNames("sampling", options, samplingRanges);
  const checked: Record<string, number> = { ...samplingDefaults };
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const range = samplingRanges[name as keyof SamplingOptions];
    if (!isInRange(value, range)) {
      throw new MllmError("invalid_argument", `${name} must be ${describeRange(range)}, not ${shown(value)}`);
    }
    checked[name] = value;
  }
  return checked as unknown as CheckedSampling;
}

/** Most candidates that are found by a heap; for more, all values are sorted. */
const heapMax = 1024;
/** With top-p or min-p and no top-k, this many of the best are tried before everything is sorted. */
const firstTry = 256;

/**
 * Draws tokens from logits. The order of the steps is llama.cpp's: penalties, top-k, top-p, min-p, temperature; top-p
 * and min-p therefore see the probabilities at temperature 1, and equal logits count as the lower id first.
 */
export class Sampler {
  /** The settings with defaults and seed filled in. */
  readonly options: Readonly<SamplingOptions>;
  /** Whether `sample` looks at the history at all. */
  readonly needsHistory: boolean;
  readonly #random: Random;
  #penalized = new Float32Array(0);

  /**
   * Fills in {@linkcode samplingDefaults} and draws a seed where there is none.
   *
   * @throws MllmError `invalid_argument` for a setting out of its range
   */
  constructor(options: Partial<SamplingOptions> = {}) {
    const checked = checkSamplingOptions(options);
    const seed = checked.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
    this.options = { ...checked, seed };
    this.#random = new Random(seed);
    const { repetitionPenalty, frequencyPenalty, presencePenalty, penaltyLastN } = this.options;
    const penalizes = repetitionPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
    this.needsHistory = penalizes && penaltyLastN !== 0;
  }

  /**
   * Draws one token.
   *
   * @param logits f32 [vocab], not changed; -inf bars a token
   * @param history the ids so far, prompt included; only the penalties use it
   * @returns its id, the index in `logits`
   * @throws MllmError `backend` where a logit is NaN or +inf, `invalid_argument` where every token is barred
   */
  sample(logits: Float32Array, history: readonly number[] = []): number {
    const row = this.needsHistory && history.length > 0 ? this.#penalize(logits, history) : logits;
    const best = checkedArgmax(row);
    const { temperature, topK, topP, minP } = this.options;
    if (temperature === 0 || topK === 1) return best;
    const count = topK === 0 ? row.length : Math.min(topK, row.length);
    const top = row[best];
    if (topP === 1 && minP === 0 && count === row.length) return this.#draw(row, undefined, row.length, top);
    if (topP === 1 && count === row.length) {
      const kept = above(row, top + Math.log(minP));
      return this.#draw(row, kept, kept.length, top);
    }
    const candidates = this.#candidates(row, count, top);
    return this.#draw(row, candidates.ids, candidates.count, top);
  }

  #penalize(logits: Float32Array, history: readonly number[]): Float32Array {
    if (this.#penalized.length !== logits.length) this.#penalized = new Float32Array(logits.length);
    this.#penalized.set(logits);
    const { penaltyLastN } = this.options;
    penalize(this.#penalized, penaltyLastN < 0 ? history : history.slice(-penaltyLastN), this.options);
    return this.#penalized;
  }

  /** Ids from high to low, and how many of them top-k, top-p and min-p leave. */
  #candidates(row: Float32Array, count: number, top: number): { ids: Int32Array; count: number } {
    const { topP, minP } = this.options;
    // Top-p renormalises over what top-k left, so without top-k its sum runs over the whole row.
    let total = 0;
    if (count === row.length) { for (let i = 0; i < row.length; i++) total += Math.exp(row[i] - top); }
    const kept = (weights: Float64Array): number => {
      const sum = total > 0 ? total : weights.reduce((a, b) => a + b, 0);
      let left = topP === 1 ? weights.length : countTopP(weights, topP * sum);
      while (left > 1 && weights[left - 1] < minP) left--;
      return left;
    };
    const first = Math.min(count, count === row.length ? firstTry : heapMax);
    // The best few are enough if they are all that was asked for, or if the cut lies among them.
    if (first === count || count === row.length) {
      const ids = highest(row, first);
      const left = kept(Float64Array.from(ids, (id) => Math.exp(row[id] - top)));
      if (first === count || left < first) return { ids, count: left };
    }
    const sorted = row.slice().sort().reverse().subarray(0, count);
    const all = kept(Float64Array.from(sorted, (value) => Math.exp(value - top)));
    return { ids: gather(row, sorted[all - 1], all), count: all };
  }

  /** Draws among `ids` (or all) at the temperature. */
  #draw(row: Float32Array, ids: Int32Array | undefined, count: number, top: number): number {
    const { temperature } = this.options;
    const weight = (i: number) => Math.exp((row[ids ? ids[i] : i] - top) / temperature);
    let sum = 0;
    for (let i = 0; i < count; i++) sum += weight(i);
    let target = this.#random.next() * sum;
    let last = 0;
    for (let i = 0; i < count; i++) {
      const w = weight(i);
      if (w === 0) continue;
      last = i;
      target -= w;
      if (target < 0) break;
    }
    return ids ? ids[last] : last;
  }
}

/** Index of the highest logit, the lowest of equals. */
function checkedArgmax(row: Float32Array): number {
  let best = -1;
  let max = -Infinity;
  for (let i = 0; i < row.length; i++) {
    if (row[i] <= max) continue; // one comparison for most of a vocabulary: neither a higher one nor NaN
    max = row[i];
    best = i;
    if (max !== max) {
      throw new MllmError("backend", `the logit of token ${i} is NaN, so no token can be drawn`, {
        next: "The weights are damaged or the model overflowed: try f32 for `activations`",
      });
    }
  }
  if (max === Infinity) throw new MllmError("backend", `the logit of token ${best} is infinite`);
  if (best < 0) throw new MllmError("invalid_argument", "every token is barred (all logits are -inf)");
  return best;
}

function above(row: Float32Array, limit: number): Int32Array {
  const ids = new Int32Array(row.length);
  let count = 0;
  for (let i = 0; i < row.length; i++) if (row[i] >= limit) ids[count++] = i;
  return ids.subarray(0, count);
}

/** The ids, in order, of the `count` values that are `least` or higher; of several equal to it, the lowest ids. */
function gather(row: Float32Array, least: number, count: number): Int32Array {
  let equal = count;
  for (let i = 0; i < row.length; i++) if (row[i] > least) equal--;
  const ids = new Int32Array(count);
  let at = 0;
  for (let i = 0; at < count; i++) {
    if (row[i] > least || (row[i] === least && equal-- > 0)) ids[at++] = i;
  }
  return ids;
}

/** The ids of the `count` highest values, from high to low; equal values by id. For small counts. */
function highest(row: Float32Array, count: number): Int32Array {
  // -inf minus -inf is NaN, which `|| a - b` turns into the order of the ids.
  const order = (a: number, b: number) => row[b] - row[a] || a - b;
  // A heap with the worst of the best so far on top; most values of a vocabulary fail the first comparison.
  const heap = new Int32Array(count);
  for (let i = 0; i < count; i++) heap[i] = i;
  const worse = (a: number, b: number) => row[a] < row[b] || (row[a] === row[b] && a > b);
  const sink = (start: number) => {
    let at = start;
    const id = heap[at];
    for (let child = 2 * at + 1; child < count; child = 2 * at + 1) {
      if (child + 1 < count && worse(heap[child + 1], heap[child])) child++;
      if (!worse(heap[child], id)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = id;
  };
  for (let i = (count >> 1) - 1; i >= 0; i--) sink(i);
  let least = row[heap[0]];
  for (let i = count; i < row.length; i++) {
    if (row[i] > least) {
      heap[0] = i;
      sink(0);
      least = row[heap[0]];
    }
  }
  return heap.sort(order);
}
