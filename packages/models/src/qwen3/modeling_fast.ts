/**
 * Qwen3 for speed: the bits of modeling.ts, with a head's norm and rotary embedding in one pass, in place, and every
 * tensor freed at its last use.
 */
import { kvAppend, type RmsNorm, type Tensor, tidy } from "@mllm/core";
import { attendToCache } from "../decoder/cached_attention.ts";
import type { DecoderConfig } from "../decoder/config.ts";
import type { LayerInput } from "../decoder/decoder.ts";
import { allQuantize, DecoderForCausalLMFast, type FastSelfAttention } from "../decoder/decoder_fast.ts";
import type { WeightLoader } from "../weights.ts";
import { Qwen3Attention } from "./modeling.ts";

class Qwen3AttentionFast extends Qwen3Attention implements FastSelfAttention {
  get quantizesInput(): boolean {
    return allQuantize(this.qProj, this.kProj, this.vProj);
  }

  override forward(x: Tensor, input: LayerInput): Tensor {
    const { position, cache } = input;
    const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = this.config;
    const [tokens] = x.shape; // x: [tokens, hiddenSize]
    const { k, v } = cache.layers[this.layer];
    const turned = (heads: Tensor, norm: RmsNorm): Tensor =>
      this.rotary.forwardNormed(heads, norm, { position, out: heads });

    tidy(() =>
      kvAppend(turned(this.kProj.forward(x).reshape(tokens, kvHeads, headDim), this.kNorm), cache.pages, k, input)
    );
    tidy(() => kvAppend(this.vProj.forward(x).reshape(tokens, kvHeads, headDim), cache.pages, v, input));
    return tidy(() => {
      const attended = tidy(() => {
        const q = turned(this.qProj.forward(x).reshape(tokens, heads, headDim), this.qNorm);
        return attendToCache(q, this, input, true);
      });
      return this.oProj.forward(attended); // [tokens, hiddenSize]
    });
  }
}

/** `Qwen3ForCausalLM`, faster op by op and in less memory; equal results. */
export class Qwen3ForCausalLMFast extends DecoderForCausalLMFast {
  constructor(config: DecoderConfig, weights: WeightLoader) {
    super(config, weights, (layer, name, rotary) => new Qwen3AttentionFast(config, layer, name, rotary, weights));
  }
}
