/**
 * Rotary embedding with its frequencies.
 * @module
 */
import type { Backend } from "../backend.ts";
import { rmsnormRope, rope, type RopeOptions } from "../ops/rows.ts";
import { Tensor } from "../tensor.ts";
import { Module } from "./module.ts";
import type { RmsNorm } from "./rms_norm.ts";
import type { RopeFrequencies } from "./rope.ts";

/** Positions of the tokens, and a place for the result. */
export type RotaryOptions = Pick<RopeOptions, "position" | "positions" | "out">;

/** Rotary embedding (Su et al. 2021): turns queries and keys by their positions. */
export class RotaryEmbedding extends Module {
  /** Radians per token of each pair, f32 [rotaryDim / 2]. */
  readonly invFreq: Tensor;
  /** Factor of sine and cosine; 1 but for YaRN. */
  readonly attentionFactor: number;

  /** Copies the frequencies to the backend. */
  constructor(
    backend: Backend,
    { invFreq, attentionFactor }: RopeFrequencies,
    /** Whether pairs are neighbours (2i, 2i+1) instead of halves. */
    readonly interleaved = false,
  ) {
    super();
    this.invFreq = Tensor.from(backend, invFreq, [invFreq.length]).named("inv_freq");
    this.attentionFactor = attentionFactor;
  }

  /** x: f32 [tokens, heads, headDim] → like x; `position` is that of token 0. */
  forward(x: Tensor, options: RotaryOptions): Tensor {
    return rope(x, this.invFreq, { ...options, interleaved: this.interleaved, scale: this.attentionFactor });
  }

  /** `forward` of what the norm makes of every head, as one op. x: f32 [tokens, heads, headDim] → like x. */
  forwardNormed(x: Tensor, { weight, eps, offset }: RmsNorm, options: RotaryOptions): Tensor {
    const { interleaved, attentionFactor: scale } = this;
    return rmsnormRope(x, weight, this.invFreq, { ...options, interleaved, scale, eps, offset });
  }
}
