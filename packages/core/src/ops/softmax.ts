/**
 * Softmax and what follows from it, along the last dim.
 * @module
 */
import type { Scalar } from "../scalar.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, callOp, type OutOption } from "./call.ts";

/** Parameters of softmax. */
export interface SoftmaxOptions extends OutOption {
  /** Factor before the softmax; 1 when absent. */
  readonly scale?: number;
}

/** softmax(scale * x); a row of -inf gives zeros. */
export function softmax(x: Tensor, options: SoftmaxOptions = {}): Tensor {
  return callOne("softmax", [x], undefined, [options.scale ?? 1], undefined, options.out);
}

/** x: [..., queries, keys]. Softmax over the keys j <= i + offset of query i; hidden keys give 0. */
export function causalSoftmax(x: Tensor, options: SoftmaxOptions & { readonly offset: Scalar }): Tensor {
  return callOne("causal_softmax", [x], [options.offset], [options.scale ?? 1], undefined, options.out);
}

/** x - logsumexp(x). */
export function logSoftmax(x: Tensor, options?: OutOption): Tensor {
  return callOne("log_softmax", [x], undefined, undefined, undefined, options?.out);
}

/** x: [rows, n], target: i32 [rows]. -logSoftmax(x)[target] of each row: f32 [rows]. */
export function crossEntropy(x: Tensor, target: Tensor, options?: OutOption): Tensor {
  return callOne("cross_entropy", [x, target], undefined, undefined, undefined, options?.out);
}

/** x: [rows, n]. Index of the largest element of each row, the lowest at a tie: i32 [rows]. */
export function argmax(x: Tensor, options?: OutOption): Tensor {
  return callOne("argmax", [x], undefined, undefined, undefined, options?.out);
}

/** x: [rows, n]. The k largest of each row, descending, ties by lower index: f32 and i32 [rows, k]. */
export function topk(x: Tensor, k: number): { values: Tensor; indices: Tensor } {
  const [values, indices] = callOp("topk", [x], undefined, undefined, { count: k });
  return { values, indices };
}
