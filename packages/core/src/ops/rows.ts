/**
 * Rows of tables, and rotary embedding.
 * @module
 */
import type { Scalar } from "../scalar.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, type OutOption } from "./call.ts";
import type { RmsNormOptions } from "./norm.ts";

/**
 * Rows of a table by id.
 *
 * @param ids i32 [tokens]
 * @param table weights [n, k] of any float or block type, strided or packed
 * @returns f32 [tokens, k]
 * @throws {MllmError} `invalid_argument` for operands of another type or rank, or an id outside 0..n-1 (captured: when
 * the program runs)
 */
export function embedding(ids: Tensor, table: Tensor, options?: OutOption): Tensor {
  return callOne("embedding", [ids, table], undefined, undefined, undefined, options?.out);
}

/**
 * `count` rows of x (f32 [rows, n]) from row `start` on, copied: f32 [count, n]. Throws `invalid_argument` for more
 * rows than x has, or rows outside x (captured: when the program runs).
 */
export function takeRows(x: Tensor, options: OutOption & { readonly start: Scalar; readonly count: number }): Tensor {
  return callOne("take_rows", [x], [options.start], undefined, { count: options.count }, options.out);
}

/** Positions and form of `rope`. */
export interface RopeOptions extends OutOption {
  /** Position of token 0 in the sequence; the others follow. */
  readonly position: Scalar;
  /** i32 [tokens]: a position for each token instead. */
  readonly positions?: Tensor;
  /** Pairs (2i, 2i+1) instead of (i, i + rotary/2). */
  readonly interleaved?: boolean;
  /** Attention factor (YaRN), else 1. */
  readonly scale?: number;
}

/**
 * Rotary embedding (Su et al. 2021): pair i of token t is turned by (position + t) * invFreq[i] radians, reduced in
 * f64, and multiplied by `scale`; dims from 2 * len(invFreq) on are copied. `out` may be x.
 *
 * @param x f32 [tokens, heads, headDim], any strides
 * @param invFreq f32 [rotaryDim / 2], at most headDim / 2
 * @returns f32, like x
 */
export function rope(x: Tensor, invFreq: Tensor, options: RopeOptions): Tensor {
  const { position, positions, interleaved = false, scale = 1, out } = options;
  return callOne("rope", [x, invFreq, positions], [position, interleaved ? 1 : 0], [scale], undefined, out);
}

/**
 * `rope` of `rmsnorm` of every head, the bits of the two ops in one pass. `out` may be x.
 *
 * @param x f32 [tokens, heads, headDim], any strides
 * @param weight f32 [headDim]
 * @param invFreq f32 [rotaryDim / 2], at most headDim / 2
 * @returns f32, like x
 */
export function rmsnormRope(
  x: Tensor,
  weight: Tensor,
  invFreq: Tensor,
  options: RopeOptions & Pick<RmsNormOptions, "eps" | "offset">,
): Tensor {
  const { position, positions, interleaved = false, scale = 1, eps, offset = 0, out } = options;
  const inputs = [x, weight, invFreq, positions];
  return callOne("rmsnorm_rope", inputs, [position, interleaved ? 1 : 0], [eps, offset, scale], undefined, out);
}
