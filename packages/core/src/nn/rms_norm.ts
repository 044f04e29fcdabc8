/**
 * RMSNorm with its weight.
 * @module
 */
import { copy } from "../ops/elementwise.ts";
import { rmsnorm, rmsnormResidual } from "../ops/norm.ts";
import type { QuantizedOption } from "../ops/call.ts";
import type { Tensor } from "../tensor.ts";
import { Module } from "./module.ts";

/** The tensor itself when it is f32, else a copy that is (and the given one is freed). */
function asF32(tensor: Tensor): Tensor {
  if (tensor.dtype === "f32") return tensor;
  const wide = copy(tensor, { dtype: "f32" });
  wide.name = tensor.name;
  tensor.free();
  return wide;
}

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
    this.weight = asF32(weight);
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
