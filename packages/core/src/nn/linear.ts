/**
 * y = x wᵀ + bias with packed weights.
 * @module
 */
import { linear, quantizesInput } from "../ops/linear.ts";
import type { Tensor } from "../tensor.ts";
import { Module } from "./module.ts";

/**
 * A linear layer, x wᵀ + bias; with a backend opened with "i8", x is quantised where the weights are (see `linear`).
 */
export class Linear extends Module {
  /** weight: packed [out, in]; bias: f32 [out]. Both are owned from now on. */
  constructor(
    /** [out, in], packed by `packWeight`. */
    readonly weight: Tensor,
    /** f32 [out] */
    readonly bias?: Tensor,
  ) {
    super();
  }

  /** Whether `forward` quantises x (see `linear`), so that q8a rows can be given to it at once. */
  get quantizesInput(): boolean {
    return quantizesInput(this.weight);
  }

  /** x: f32 [rows, in], or q8a where `quantizesInput` → f32 [rows, out]. */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
