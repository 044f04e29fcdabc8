/**
 * Oracle of the Sampler: what each step of sampling makes of the probabilities of a whole row, written as its
 * definition reads, without the Sampler's shortcuts.
 */

/**
 * Probabilities of logits: softmax(x / temperature). -inf gives 0.
 *
 * @param logits f32 [vocab]
 * @param temperature above 0
 */
export function temperatureProbabilities(logits: ArrayLike<number>, temperature = 1): Float64Array {
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
  let count = 0;
  for (let sum = 0; count < order.length && (count === 0 || sum < p); count++) sum += probabilities[order[count]];
  return keep(probabilities, order.slice(0, count));
}

/** Keeps the tokens with at least `minP` times the highest probability and renormalises (Nguyen et al., 2024). */
export function minPProbabilities(probabilities: ArrayLike<number>, minP: number): Float64Array {
  const order = descending(probabilities);
  return keep(probabilities, order.filter((i) => probabilities[i] >= minP * probabilities[order[0]]));
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
