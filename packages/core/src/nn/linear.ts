/**
 * y = x wᵀ + bias with packed weights.
 * @module
 */
import { copy } from "../ops/elementwise.ts";
import { linear, packWeight } from "../ops/linear.ts";
import type { Tensor } from "../tensor.ts";
import { asF32, Module } from "./module.ts";

/** A linear layer. */
export class Linear extends Module {
  /** weight: packed [out, in]; bias: f32 [out]. Both are owned from now on. */
  constructor(
    /** Packed [out, in]. */
    readonly weight: Tensor,
    /** f32 [out] */
    readonly bias?: Tensor,
  ) {
    super();
  }

  /** Packs weights [out, in] of any type and widens the bias; the given tensors are freed. */
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
