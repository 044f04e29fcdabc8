/**
 * Softmax and what follows from it, along the last dim of f32 tensors of any strides. They throw `invalid_argument` for
 * operands of another type or shape.
 * @module
 */
import type { Scalar } from "../scalar.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, callOp, type OutOption } from "./call.ts";

/** Scale of the scores and the place of the result. */
export interface SoftmaxOptions extends OutOption {
  /** Factor before the softmax; 1 when absent. */
  readonly scale?: number;
}

/** softmax(scale * x) of each row of x, f32 [rows..., n]; a row of -inf gives zeros. Gives f32 like x. */
export function softmax(x: Tensor, options: SoftmaxOptions = {}): Tensor {
  return callOne("softmax", [x], undefined, [options.scale ?? 1], undefined, options.out);
}

/** x: f32 [..., queries, keys]. Softmax over the keys j <= i + offset of query i; hidden keys give 0. f32 like x. */
export function causalSoftmax(x: Tensor, options: SoftmaxOptions & { readonly offset: Scalar }): Tensor {
  return callOne("causal_softmax", [x], [options.offset], [options.scale ?? 1], undefined, options.out);
}

/** x - log(sum(exp(x))) of each row of x, f32 [rows..., n]. Gives f32 like x. */
export function logSoftmax(x: Tensor, options?: OutOption): Tensor {
  return callOne("log_softmax", [x], undefined, undefined, undefined, options?.out);
}

/**
 * Negative log-likelihood in nats: -logSoftmax(x)[target] of each row. x: f32 [rows, n]; target: i32 [rows]. Gives f32
 * [rows].
 */
export function crossEntropy(x: Tensor, target: Tensor, options?: OutOption): Tensor {
  return callOne("cross_entropy", [x, target], undefined, undefined, undefined, options?.out);
}

/**
 * Index of the largest element of each row, the lowest at a tie; NaN counts as smaller than every number. x: f32 [rows,
 * n], n > 0. Gives i32 [rows].
 */
export function argmax(x: Tensor, options?: OutOption): Tensor {
  return callOne("argmax", [x], undefined, undefined, undefined, options?.out);
}

/**
 * The k largest elements of each row in descending order, ties by lower index. x: f32 [rows, n]; k in 1..n, else
 * `invalid_argument`. Gives values f32 [rows, k] and their indices i32 [rows, k].
 */
export function topk(x: Tensor, k: number): { values: Tensor; indices: Tensor } {
  const [values, indices] = callOp("topk", [x], undefined, undefined, { count: k });
  return { values, indices };
}

/** What `softmaxTopk` does beside taking k. */
export interface SoftmaxTopkOptions {
  /** Factor before the softmax; 1 when absent. */
  readonly scale?: number;
  /** Divides the k weights of a row by their sum (Hugging Face's `norm_topk_prob`). */
  readonly normalized?: boolean;
}

/**
 * The k largest of softmax(scale * x) of each row, as `topk` orders them: the router of a mixture of experts (Shazeer et
 * al. 2017). x: f32 [rows, n]; k in 1..n, else `invalid_argument`. Gives weights f32 [rows, k] and indices i32 [rows, k].
 */
export function softmaxTopk(
  x: Tensor,
  k: number,
  { scale = 1, normalized = false }: SoftmaxTopkOptions = {},
): { weights: Tensor; indices: Tensor } {
  const [weights, indices] = callOp("softmax_topk", [x], [normalized ? 1 : 0], [scale], { count: k });
  return { weights, indices };
}
