import { MllmError } from "@mllm/core";
import type { LanguageModel } from "./language_model.ts";

/** Result of {@linkcode perplexity}. */
export interface Perplexity {
  /** exp(mean negative log-likelihood). */
  ppl: number;
  /** Standard error of `ppl`, from the variance of the negative log-likelihoods; 0 for a single one. */
  error: number;
  /** Tokens that were scored. */
  count: number;
  /** Their negative log-likelihoods in nats, in order. */
  nll: Float32Array;
}

/** What {@linkcode perplexity} may do otherwise. */
export interface PerplexityOptions {
  /**
   * Scores what is predicted from the middle of each window on (of 512 tokens the last 255): the definition of
   * llama.cpp's tools/perplexity. Needs windows, and ids, of at least 3.
   */
  secondHalf?: boolean;
  /** Stands in the place of the first token of each window, as llama.cpp has it for models whose texts begin with it. */
  bosId?: number;
  /** Called after each window with the result so far. */
  onWindow?: (soFar: Perplexity, done: number, total: number) => void;
}

/**
 * Perplexity of a token sequence over non-overlapping windows, each run from position 0; every token but the first of a
 * window is scored, see {@linkcode PerplexityOptions}. A last window that is not full is left out unless it is the only
 * one.
 *
 * @param window tokens per window, at most the model's context, which it is where that is below 512
 * @throws {MllmError} `invalid_argument` when the window is not in 2 … context, or 3 … context for the second half, for
 * fewer ids than the least window, and for unknown ids
 */
export async function perplexity(
  model: Pick<LanguageModel, "context" | "score">,
  ids: readonly number[],
  window: number = Math.min(512, model.context),
  { secondHalf = false, bosId, onWindow }: PerplexityOptions = {},
): Promise<Perplexity> {
  const least = secondHalf ? 3 : 2;
  if (!Number.isInteger(window) || window < least || window > model.context) {
    throw new MllmError(
      "invalid_argument",
      `the window must be a whole number from ${least} to ${model.context}, not ${window}`,
    );
  }
  if (ids.length < least) {
    throw new MllmError("invalid_argument", `there must be at least ${least} ids to score any, not ${ids.length}`);
  }
  const windows = Math.max(1, Math.floor(ids.length / window));
  const nll = new Float32Array(windows * window);
  let count = 0;
  for (let i = 0; i < windows; i++) {
    const part = ids.slice(i * window, (i + 1) * window);
    if (bosId !== undefined) part[0] = bosId;
    const scores = await model.score(part);
    const scored = scores.subarray(secondHalf ? part.length >> 1 : 0);
    nll.set(scored, count);
    count += scored.length;
    onWindow?.(summary(nll.subarray(0, count)), i + 1, windows);
  }
  return summary(nll.slice(0, count));
}

function summary(nll: Float32Array): Perplexity {
  const count = nll.length;
  const mean = nll.reduce((sum, value) => sum + value, 0) / count;
  const squares = nll.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const ppl = Math.exp(mean);
  return { ppl, error: count < 2 ? 0 : ppl * Math.sqrt(squares / count / (count - 1)), count, nll };
}
