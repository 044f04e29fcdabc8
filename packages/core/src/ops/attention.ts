/**
 * Attention over a paged cache.
 * @module
 */
import type { Activations } from "../backend.ts";
import type { Scalar } from "../scalar.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, type OutOption } from "./call.ts";

/**
 * Writes x (f32 [tokens, kvHeads, headDim], any strides) into `cache` (f32, f16, q8_0 or q4_0 [pages, kvHeads, pageSize,
 * headDim]) from `position` on, through the page table `pages` (i32 [logical pages]), rounding to the cache's type. Keys
 * of q8_0 and q4_0 are stored less the mean of the page before, which must be in the page table with them. Returns
 * `cache`. Throws `invalid_argument` when heads or types do not fit, or the tokens lie outside the page table.
 */
export function kvAppend(x: Tensor, pages: Tensor, cache: Tensor, options: { readonly position: Scalar }): Tensor {
  return callOne("kv_append", [x, pages], [options.position], undefined, { cache }, cache);
}

/** Which keys `attention` sees, and how scores are scaled. */
export interface AttentionOptions extends OutOption {
  /**
   * Gives q8a [tokens, heads * headDim] instead of f32: the bits of `quantizeRows` of the f32 rows. headDim must be a
   * multiple of 32.
   */
  readonly quantized?: boolean;
  /** Position of query 0 in the sequence, in tokens. */
  readonly position: Scalar;
  /** Sliding window in tokens; none when absent. */
  readonly window?: number;
  /** Factor of the scores, usually 1/sqrt(headDim). */
  readonly scale: number;
  /** cap * tanh(score / cap) before the softmax; none when absent. */
  readonly softcap?: number;
  /**
   * "i8": runs of 32 tokens or more multiply in int8, whatever the cache's type: much faster, at an error of 1 to 2 % of
   * the result for normal numbers. "f32" (the default) rounds nothing but what the cache has rounded.
   */
  readonly activations?: Activations;
}

/**
 * softmax(scale * q kᵀ) v, causal: query t sees keys j <= position + t, with a window also j > position + t - window.
 * Computed one page at a time with a running maximum (FlashAttention-2, Dao 2023), so that a row's bits depend neither
 * on the number of queries nor on the threads; with activations "i8" it depends on whether there are 32 tokens.
 *
 * With activations "i8", keys of f32 and f16 are measured from the mean of the page before theirs: with a window, the
 * page before the first visible one is read too, so it must still be in the page table with its old keys.
 *
 * @param q f32 [tokens, heads, headDim], any strides; query head h reads kv head floor(h / (heads / kvHeads))
 * @param k cache of keys, f32, f16, q8_0 or q4_0 [pages, kvHeads, pageSize, headDim]
 * @param v cache of values, of any of these types
 * @param pages i32 [logical pages], the physical page of each
 * @returns f32 [tokens, heads, headDim], or q8a [tokens, heads * headDim] when `quantized`
 * @throws {MllmError} `invalid_argument` when heads, headDim or types do not fit, or a key lies outside the page table
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, pages: Tensor, options: AttentionOptions): Tensor {
  const { position, window = 0, scale, softcap = 0, activations = "f32", out } = options;
  const ints = [position, window, activations === "i8" ? 1 : 0];
  return callOne("attention", [q, k, v, pages], ints, [scale, softcap], options, out);
}
