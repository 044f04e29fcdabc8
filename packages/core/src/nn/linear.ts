/**
 * y = x wᵀ + bias with packed weights.
 * @module
 */
import { copy } from "../ops/elementwise.ts";
import { linear, packWeight } from "../ops/linear.ts";
import type { Tensor } from "../tensor.ts";
import { asF32, Module } from "./module.ts";

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

  /**
   * Packs weights [out, in] of any float or block type and widens the bias [out] to f32; the given tensors are freed.
   * Throws `unsupported` when the backend can't pack the type.
   */
  static pack(weight: Tensor, bias?: Tensor): Linear {
    const packed = packWeight(weight);
    weight.free();
    return new Linear(packed, bias && asF32(bias, (b) => copy(b, { dtype: "f32" })));
  }

  /** x: f32 [rows, in] → f32 [rows, out]. */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
