/**
 * Elementwise ops. All take and give f32; `out` may be the input.
 * @module
 */
import type { DType } from "../dtype.ts";
import type { OpName } from "../native/abi.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, type OutOption } from "./call.ts";

/** An op of one tensor. */
export type Unary = (x: Tensor, options?: OutOption) => Tensor;

const unary = (op: OpName): Unary => (x, options) => callOne(op, [x], undefined, undefined, undefined, options?.out);

/**
 * A contiguous copy, in another type if wanted: f32, f16 and bf16 convert (to nearest even), weights in blocks or
 * packed [n, k] become f32.
 */
export function copy(x: Tensor, options: OutOption & { dtype?: DType } = {}): Tensor {
  const dtype = options.dtype ?? options.out?.dtype;
  return callOne("copy", [x], undefined, undefined, { dtype }, options.out);
}

/** a + b; b has the shape of a or of its trailing dims. */
export function add(a: Tensor, b: Tensor, options?: OutOption): Tensor {
  return callOne("add", [a, b], undefined, undefined, undefined, options?.out);
}

/** a * b; b has the shape of a or of its trailing dims. */
export function mul(a: Tensor, b: Tensor, options?: OutOption): Tensor {
  return callOne("mul", [a, b], undefined, undefined, undefined, options?.out);
}

/** x * value. */
export function mulConst(x: Tensor, value: number, options?: OutOption): Tensor {
  return callOne("mul_const", [x], undefined, [value], undefined, options?.out);
}

/** x * sigmoid(x). */
export const silu: Unary = unary("silu");
/** GELU, tanh form (Hendrycks & Gimpel 2016): 0.5x(1 + tanh(sqrt(2/pi)(x + 0.044715x³))). */
export const geluTanh: Unary = unary("gelu_tanh");
/** GELU, exact form: 0.5x(1 + erf(x/sqrt(2))). */
export const geluErf: Unary = unary("gelu_erf");
/** x * sigmoid(1.702x). */
export const quickGelu: Unary = unary("quick_gelu");
/** 1 / (1 + exp(-x)). */
export const sigmoid: Unary = unary("sigmoid");
/** max(x, 0). */
export const relu: Unary = unary("relu");
/** max(x, 0)². */
export const relu2: Unary = unary("relu2");
/** tanh(x). */
export const tanh: Unary = unary("tanh");
/** log(1 + exp(x)). */
export const softplus: Unary = unary("softplus");
/** exp(x). */
export const exp: Unary = unary("exp");

/** cap * tanh(x / cap). */
export function softcap(x: Tensor, cap: number, options?: OutOption): Tensor {
  return callOne("softcap", [x], undefined, [cap], undefined, options?.out);
}

/** silu(gate) * up: the same bits as the two ops. */
export function swiglu(gate: Tensor, up: Tensor, options?: OutOption): Tensor {
  return callOne("swiglu", [gate, up], undefined, undefined, undefined, options?.out);
}

/** geluTanh(gate) * up. */
export function gegluTanh(gate: Tensor, up: Tensor, options?: OutOption): Tensor {
  return callOne("geglu_tanh", [gate, up], undefined, undefined, undefined, options?.out);
}
