import { MllmError } from "@mllm/core";
import type { LanguageModel } from "./language_model.ts";

/** Result of {@linkcode perplexity}. */
export interface Perplexity {
  /** exp(mean negative log-likelihood). */
  ppl: number;
  /** Tokens that were scored. */
  count: number;
  /** Their negative log-likelihoods in nats, in order. */
  nll: Float32Array;
}

/**
 * Perplexity of a token sequence over non-overlapping windows, each run from position 0 with no BOS added; every token
 * but the first of a window is scored. A last window that is not full is left out unless it is the only one.
 *
 * @param window tokens per window, at most the model's context
 * @throws {MllmError} `invalid_argument` when the window is not in 2 … context
 */
export async function perplexity(model: LanguageModel, ids: readonly number[], window = 512): Promise<Perplexity> {
  if (!Number.isInteger(window) || window < 2 || window > model.context) {
    throw new MllmError(
      "invalid_argument",
      `the window must be a whole number from 2 to ${model.context}, not ${window}`,
    );
  }
  const windows = Math.max(1, Math.floor(ids.length / window));
  const parts: Float32Array[] = [];
  for (let i = 0; i < windows; i++) parts.push(await model.score(ids.slice(i * window, (i + 1) * window)));
  const nll = Float32Array.from(parts.flatMap((part) => [...part]));
  const mean = nll.reduce((sum, value) => sum + value, 0) / nll.length;
  return { ppl: Math.exp(mean), count: nll.length, nll };
}
