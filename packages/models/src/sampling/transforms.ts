/**
 * The steps of sampling, each on its own and over plain arrays, so that each can be read and tested alone. The Sampler
 * chains them on the candidates only; these act on whole rows.
 *
 * @module
 */
import { MllmError } from "@mllm/core";

/**
 * Probabilities of logits, in place-order: softmax(x / temperature). -inf gives 0.
 *
 * @param logits f32 [vocab]
 * @param temperature above 0
 */
export function temperatureProbabilities(logits: ArrayLike<number>, temperature = 1): Float64Array {
  if (!(temperature > 0)) {
    throw new MllmError("invalid_argument", `a temperature of ${temperature} gives no probabilities`);
  }
  let max = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i] > max) max = logits[i];
  const out = new Float64Array(logits.length);
  if (max === -Infinity) return out;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += out[i] = Math.exp((logits[i] - max) / temperature);
  for (let i = 0; i < out.length; i++) out[i] /= sum;
  return out;
}

/** Keeps the k most probable tokens (the lower id first among equals) and renormalises; k of 0 keeps all. */
export function topKProbabilities(probabilities: ArrayLike<number>, k: number): Float64Array {
  const order = descending(probabilities);
  return keep(probabilities, k > 0 ? order.slice(0, k) : order);
}

/** Keeps the most probable tokens until their sum reaches p, the one that crosses it included, and renormalises. */
export function topPProbabilities(probabilities: ArrayLike<number>, p: number): Float64Array {
  const order = descending(probabilities);
  return keep(probabilities, order.slice(0, countTopP(order.map((i) => probabilities[i]), p)));
}

/** Keeps the tokens with at least `minP` times the highest probability and renormalises (Nguyen et al., 2024). */
export function minPProbabilities(probabilities: ArrayLike<number>, minP: number): Float64Array {
  const order = descending(probabilities);
  return keep(probabilities, order.filter((i) => probabilities[i] >= minP * probabilities[order[0]]));
}

/** How many of these probabilities, given from high to low, top-p keeps: at least one. */
export function countTopP(sorted: ArrayLike<number>, p: number): number {
  let sum = 0;
  for (let i = 0; i < sorted.length; i++) {
    if (i > 0 && sum >= p) return i;
    sum += sorted[i];
  }
  return sorted.length;
}

/** Penalties for tokens that occurred before. */
export interface Penalties {
  /**
   * Above 1: a positive logit is divided by it, a negative one multiplied, once per distinct token (Keskar et al.,
   * 2019).
   */
  repetitionPenalty: number;
  /** Subtracted once for each occurrence. */
  frequencyPenalty: number;
  /** Subtracted once for each distinct token. */
  presencePenalty: number;
}

/**
 * Applies penalties to the logits in place: repetition first, then frequency and presence, as llama.cpp.
 *
 * @param logits f32 [vocab]
 * @param history ids that occurred; those beyond the logits don't count
 */
export function penalize(logits: Float32Array, history: readonly number[], penalties: Penalties): void {
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = penalties;
  const counts = new Map<number, number>();
  for (const id of history) if (id >= 0 && id < logits.length) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) {
    const logit = logits[id];
    const repeated = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    logits[id] = repeated - count * frequencyPenalty - presencePenalty;
  }
}

function descending(values: ArrayLike<number>): number[] {
  return Array.from(values, (_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
}

function keep(probabilities: ArrayLike<number>, indices: readonly number[]): Float64Array {
  const out = new Float64Array(probabilities.length);
  let sum = 0;
  for (const i of indices) sum += probabilities[i];
  for (const i of indices) out[i] = probabilities[i] / sum;
  return out;
}
