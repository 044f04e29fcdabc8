/**
 * Norms along the last dim. All take and give f32; `out` may be x.
 * @module
 */
import type { Tensor } from "../tensor.ts";
import { callOne, callOp, type OutOption } from "./call.ts";

/** Parameters of RMSNorm. */
export interface RmsNormOptions extends OutOption {
  /** Added to the mean square. */
  readonly eps: number;
  /** Added to the weight: 1 for Gemma, else 0. */
  readonly offset?: number;
}

/** x / sqrt(mean(x²) + eps) * (weight + offset) (Zhang & Sennrich 2019). weight: [n]. */
export function rmsnorm(x: Tensor, weight: Tensor, options: RmsNormOptions): Tensor {
  const { eps, offset = 0, out } = options;
  return callOne("rmsnorm", [x, weight], undefined, [eps, offset], undefined, out);
}

/**
 * sum = x + residual; out = rmsnorm(sum): the same bits as the two ops. `options.out` takes the norm, `options.sum` the
 * sum (which may be x or residual).
 */
export function rmsnormResidual(
  x: Tensor,
  residual: Tensor,
  weight: Tensor,
  options: RmsNormOptions & { readonly sum?: Tensor },
): { sum: Tensor; out: Tensor } {
  const { eps, offset = 0 } = options;
  const outs = [options.sum, options.out];
  const [sum, out] = callOp("rmsnorm_residual", [x, residual, weight], undefined, [eps, offset], undefined, outs);
  return { sum, out };
}

/** (x - mean) / sqrt(var + eps) * weight + bias, biased variance. weight, bias: [n]. */
export function layernorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  options: OutOption & { readonly eps: number },
): Tensor {
  return callOne("layernorm", [x, weight, bias], undefined, [options.eps], undefined, options.out);
}

/** x / max(|x|, eps). */
export function l2norm(x: Tensor, options: OutOption & { readonly eps?: number } = {}): Tensor {
  return callOne("l2norm", [x], undefined, [options.eps ?? 1e-12], undefined, options.out);
}
