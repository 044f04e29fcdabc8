import { type Linear, mul, silu, type Tensor } from "@mllm/core";
import type { WeightLoader } from "../weights.ts";

/** The feed-forward block of Llama-like decoders (SwiGLU, Shazeer 2020): down(silu(gate(x)) * up(x)). */
export class GatedMlp {
  readonly gateProj: Linear;
  readonly upProj: Linear;
  readonly downProj: Linear;

  constructor(name: string, hiddenSize: number, intermediateSize: number, weights: WeightLoader) {
    this.gateProj = weights.linear(`${name}.gate_proj`, intermediateSize, hiddenSize);
    this.upProj = weights.linear(`${name}.up_proj`, intermediateSize, hiddenSize);
    this.downProj = weights.linear(`${name}.down_proj`, hiddenSize, intermediateSize);
  }

  /** x and the result: f32 [tokens, hiddenSize]. */
  forward(x: Tensor): Tensor {
    return this.downProj.forward(mul(silu(this.gateProj.forward(x)), this.upProj.forward(x)));
  }
}
