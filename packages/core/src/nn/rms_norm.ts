/**
 * RMSNorm with its weight.
 * @module
 */
import { copy } from "../ops/elementwise.ts";
import { rmsnorm, rmsnormResidual } from "../ops/norm.ts";
import type { QuantizedOption } from "../ops/call.ts";
import type { Tensor } from "../tensor.ts";
import { asF32, Module } from "./module.ts";

/** x / sqrt(mean(x²) + eps) * (weight + offset) along the last dim (Zhang & Sennrich 2019). */
export class RmsNorm extends Module {
  /** Scale of each element before `offset` is added, f32 [n]. */
  readonly weight: Tensor;

  /** weight: [n] of any float type, owned from now on; offset is 1 for Gemma, else 0. */
  constructor(
    weight: Tensor,
    /** Added to the mean square before the root. */
    readonly eps: number,
    /** Added to the weight. */
    readonly offset = 0,
  ) {
    super();
    this.weight = asF32(weight, (w) => copy(w, { dtype: "f32" }));
  }

  /** x: f32 [..., n] → like x, or q8a [rows, n] when `quantized`. */
  forward(x: Tensor, options?: QuantizedOption): Tensor {
    return rmsnorm(x, this.weight, { ...options, eps: this.eps, offset: this.offset });
  }

  /** sum = x + residual, out = norm of the sum, as one op. All f32 [..., n]; out q8a [rows, n] when `quantized`. */
  forwardResidual(
    x: Tensor,
    residual: Tensor,
    options?: QuantizedOption & { readonly sum?: Tensor },
  ): { sum: Tensor; out: Tensor } {
    return rmsnormResidual(x, residual, this.weight, { ...options, eps: this.eps, offset: this.offset });
  }
}
