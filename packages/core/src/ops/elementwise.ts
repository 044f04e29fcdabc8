/**
 * Elementwise ops: f32 of any shape and strides in, contiguous f32 out; `out` may be an input. Every op throws
 * MllmError `invalid_argument` for operands of another type, shape or backend, `out_of_memory` when the result does not
 * fit.
 * @module
 */
import type { DType } from "../dtype.ts";
import type { OpName } from "../native/abi.ts";
import type { Tensor } from "../tensor.ts";
import { callOne, type OutOption, type QuantizedOption } from "./call.ts";

/**
 * An op of one tensor: x f32 [rows..., n] → f32, like x. Throws `invalid_argument` when x is not f32 or has no dims.
 */
export type Unary = (x: Tensor, options?: OutOption) => Tensor;

const unary = (op: OpName): Unary => (x, options) => callOne(op, [x], undefined, undefined, undefined, options?.out);

/**
 * A contiguous copy, in another type if wanted: f32, f16 and bf16 convert (to nearest even), weights in blocks or
 * packed [n, k] become f32. Throws `invalid_argument` for any other conversion and for q8a.
 */
export function copy(x: Tensor, options: OutOption & { dtype?: DType } = {}): Tensor {
  const dtype = options.dtype ?? options.out?.dtype;
  return callOne("copy", [x], undefined, undefined, { dtype }, options.out);
}

/**
 * a + b. a: f32 [..., n]; b: f32, the shape of a or of its trailing dims, over which it is repeated. Gives f32 like a.
 */
export function add(a: Tensor, b: Tensor, options?: OutOption): Tensor {
  return callOne("add", [a, b], undefined, undefined, undefined, options?.out);
}

/**
 * a * b. a: f32 [..., n]; b: f32, the shape of a or of its trailing dims, over which it is repeated. Gives f32 like a.
 */
export function mul(a: Tensor, b: Tensor, options?: OutOption): Tensor {
  return callOne("mul", [a, b], undefined, undefined, undefined, options?.out);
}

/** x * value, f32 like x; `value` is rounded to f32. */
export function mulConst(x: Tensor, value: number, options?: OutOption): Tensor {
  return callOne("mul_const", [x], undefined, [value], undefined, options?.out);
}

/** SiLU (Hendrycks & Gimpel 2016), also called swish: x * sigmoid(x). */
export const silu: Unary = unary("silu");
/** GELU, tanh form (Hendrycks & Gimpel 2016): 0.5x(1 + tanh(sqrt(2/pi)(x + 0.044715x³))). */
export const geluTanh: Unary = unary("gelu_tanh");
/** GELU, exact form: 0.5x(1 + erf(x/sqrt(2))). */
export const geluErf: Unary = unary("gelu_erf");
/** GELU, sigmoid form (Hendrycks & Gimpel 2016): x * sigmoid(1.702x). */
export const quickGelu: Unary = unary("quick_gelu");
/** 1 / (1 + exp(-x)). */
export const sigmoid: Unary = unary("sigmoid");
/** max(x, 0). */
export const relu: Unary = unary("relu");
/** Squared ReLU (So et al. 2021): max(x, 0)². */
export const relu2: Unary = unary("relu2");
/** Hyperbolic tangent of each element. */
export const tanh: Unary = unary("tanh");
/** log(1 + exp(x)). */
export const softplus: Unary = unary("softplus");
/** e to the power of each element. */
export const exp: Unary = unary("exp");

/** cap * tanh(x / cap): nearly x for small x, never beyond ±cap. f32 like x. */
export function softcap(x: Tensor, cap: number, options?: OutOption): Tensor {
  return callOne("softcap", [x], undefined, [cap], undefined, options?.out);
}

/** SwiGLU (Shazeer 2020): silu(gate) * up, the same bits as the two ops. gate, up: f32 of one shape. */
export function swiglu(gate: Tensor, up: Tensor, options?: QuantizedOption): Tensor {
  return callOne("swiglu", [gate, up], undefined, undefined, options, options?.out);
}

/** GEGLU (Shazeer 2020): geluTanh(gate) * up. gate, up: f32 of one shape. */
export function gegluTanh(gate: Tensor, up: Tensor, options?: QuantizedOption): Tensor {
  return callOne("geglu_tanh", [gate, up], undefined, undefined, options, options?.out);
}
