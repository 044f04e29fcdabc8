/**
 * The steps of sampling that can stand alone. The Sampler applies them to the candidates it found.
 *
 * @module
 */
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
