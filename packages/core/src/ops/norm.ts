/**
 * Norms along the last dim: f32 [rows..., n] of any strides in, contiguous f32 out; `out` may be x. They throw
 * `invalid_argument` for operands of another type or shape.
 * @module
 */
import type { Tensor } from "../tensor.ts";
import { callOne, callOp, type OutOption, type QuantizedOption } from "./call.ts";

/** Constants of RMSNorm and the place of its result. */
export interface RmsNormOptions extends QuantizedOption {
  /** Added to the mean square before the root; rounded to f32. */
  readonly eps: number;
  /** Added to the weight: 1 for Gemma, else 0. */
  readonly offset?: number;
}

/** RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x²) + eps) * (weight + offset). weight: f32 [n]. Gives f32 like x. */
export function rmsnorm(x: Tensor, weight: Tensor, options: RmsNormOptions): Tensor {
  const { eps, offset = 0, out } = options;
  return callOne("rmsnorm", [x, weight], undefined, [eps, offset], options, out);
}

/**
 * sum = x + residual; out = rmsnorm(sum): the same bits as the two ops. x, residual, sum, out: f32 [..., n]; weight:
 * f32 [n]. `options.out` takes the norm, `options.sum` the sum (which may be x or residual); `options.quantized` is about
 * the norm.
 */
export function rmsnormResidual(
  x: Tensor,
  residual: Tensor,
  weight: Tensor,
  options: RmsNormOptions & { readonly sum?: Tensor },
): { sum: Tensor; out: Tensor } {
  const { eps, offset = 0 } = options;
  const outs = [options.sum, options.out];
  const [sum, out] = callOp("rmsnorm_residual", [x, residual, weight], undefined, [eps, offset], options, outs);
  return { sum, out };
}

/**
 * LayerNorm (Ba et al. 2016): (x - mean) / sqrt(var + eps) * weight + bias, biased variance. weight, bias: f32 [n].
 * Gives f32 like x.
 */
export function layernorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  options: OutOption & { readonly eps: number },
): Tensor {
  return callOne("layernorm", [x, weight, bias], undefined, [options.eps], undefined, options.out);
}

/** x / max(‖x‖₂, eps) of each row; eps is 1e-12 when absent. Gives f32 like x. */
export function l2norm(x: Tensor, options: OutOption & { readonly eps?: number } = {}): Tensor {
  return callOne("l2norm", [x], undefined, [options.eps ?? 1e-12], undefined, options.out);
}
