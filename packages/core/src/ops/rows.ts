/**
 * Rows of tables, and rotary embedding.
 * @module
 */
import type { Scalar } from "../scalar.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, type OutOption } from "./call.ts";

/**
 * Rows of `table` (weights [n, k], strided or packed) for `ids` (i32 [tokens]) as f32 [tokens, k]. An id outside 0..n-1
 * is a `backend` error.
 */
export function embedding(ids: Tensor, table: Tensor, options?: OutOption): Tensor {
  return callOne("embedding", [ids, table], undefined, undefined, undefined, options?.out);
}

/** `count` rows of x [rows, n] from row `start` on. */
export function takeRows(x: Tensor, options: OutOption & { readonly start: Scalar; readonly count: number }): Tensor {
  return callOne("take_rows", [x], [options.start], undefined, { count: options.count }, options.out);
}

/** Parameters of `rope`. */
export interface RopeOptions extends OutOption {
  /** Position of token 0. */
  readonly position: Scalar;
  /** i32 [tokens]: a position for each token instead. */
  readonly positions?: Tensor;
  /** Pairs (2i, 2i+1) instead of (i, i + rotary/2). */
  readonly interleaved?: boolean;
  /** Attention factor (YaRN), else 1. */
  readonly scale?: number;
}

/**
 * Rotary embedding (Su et al. 2021) of x [tokens, heads, headDim]: pairs are turned by position * invFreq[i] and
 * multiplied by `scale`; dims from 2 * len(invFreq) on are copied. `out` may be x.
 */
export function rope(x: Tensor, invFreq: Tensor, options: RopeOptions): Tensor {
  const { position, positions, interleaved = false, scale = 1, out } = options;
  return callOne("rope", [x, invFreq, positions], [position, interleaved ? 1 : 0], [scale], undefined, out);
}
