/**
 * Attention over a paged cache.
 * @module
 */
import type { Scalar } from "../scalar.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, type OutOption } from "./call.ts";

/**
 * Writes x [tokens, kvHeads, headDim] into `cache` [pages, kvHeads, pageSize, headDim] from `position` on, through the
 * page table `pages` (i32 [logical pages]), converting to the cache's type. Returns `cache`.
 */
export function kvAppend(x: Tensor, pages: Tensor, cache: Tensor, options: { readonly position: Scalar }): Tensor {
  return callOne("kv_append", [x, pages], [options.position], undefined, { cache }, cache);
}

/** Parameters of `attention`. */
export interface AttentionOptions extends OutOption {
  /** Position of query 0. */
  readonly position: Scalar;
  /** Sliding window in tokens; none when absent. */
  readonly window?: number;
  /** Factor of the scores, usually 1/sqrt(headDim). */
  readonly scale: number;
  /** cap * tanh(score / cap) before the softmax; none when absent. */
  readonly softcap?: number;
}

/**
 * softmax(scale * q kᵀ) v, causal: query t sees keys j <= position + t, with a window also j > position + t - window.
 * q: [tokens, heads, headDim]; k, v: caches [pages, kvHeads, pageSize, headDim]; query head h reads kv head
 * h / (heads / kvHeads). Gives f32 [tokens, heads, headDim].
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, pages: Tensor, options: AttentionOptions): Tensor {
  const { position, window = 0, scale, softcap = 0, out } = options;
  return callOne("attention", [q, k, v, pages], [position, window], [scale, softcap], undefined, out);
}
