/**
 * Qwen2 and Qwen2.5 for speed: the bits of modeling.ts, with the rotary embedding in place and every tensor freed at its
 * last use.
 */
import { kvAppend, type Tensor, tidy } from "@mllm/core";
import { attendToCache } from "../decoder/cached_attention.ts";
import type { DecoderConfig } from "../decoder/config.ts";
import type { LayerInput } from "../decoder/decoder.ts";
import { allQuantize, DecoderForCausalLMFast, type FastSelfAttention } from "../decoder/decoder_fast.ts";
import type { WeightLoader } from "../weights.ts";
import { Qwen2Attention } from "./modeling.ts";

class Qwen2AttentionFast extends Qwen2Attention implements FastSelfAttention {
  get quantizesInput(): boolean {
    return allQuantize(this.qProj, this.kProj, this.vProj);
  }

  override forward(x: Tensor, input: LayerInput): Tensor {
    const { position, cache } = input;
    const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = this.config;
    const [tokens] = x.shape; // x: [tokens, hiddenSize]
    const { k, v } = cache.layers[this.layer];
    const turned = (heads: Tensor): Tensor => this.rotary.forward(heads, { position, out: heads });

    tidy(() => kvAppend(turned(this.kProj.forward(x).reshape(tokens, kvHeads, headDim)), cache.pages, k, input));
    tidy(() => kvAppend(this.vProj.forward(x).reshape(tokens, kvHeads, headDim), cache.pages, v, input));
    return tidy(() => {
      const attended = tidy(() => {
        const q = turned(this.qProj.forward(x).reshape(tokens, heads, headDim));
        return attendToCache(q, this, input, true);
      });
      return this.oProj.forward(attended); // [tokens, hiddenSize]
    });
  }
}

/** `Qwen2ForCausalLM`, faster op by op and in less memory; equal results. */
export class Qwen2ForCausalLMFast extends DecoderForCausalLMFast {
  constructor(config: DecoderConfig, weights: WeightLoader) {
    super(config, weights, (layer, name, rotary) => new Qwen2AttentionFast(config, layer, name, rotary, weights));
  }
}
