/**
 * Qwen2 and Qwen2.5, dense (Qwen2 Technical Report, arXiv 2407.10671; reference implementation: Hugging Face
 * transformers, models/qwen2/modeling_qwen2.py): a Llama-like decoder with biases on q, k and v. Names of weights and
 * config fields are Hugging Face's.
 */
import type { Linear, RotaryEmbedding, Tensor } from "@mllm/core";
import { cachedAttention } from "../decoder/cached_attention.ts";
import type { DecoderConfig } from "../decoder/config.ts";
import { DecoderForCausalLM, type LayerInput, type SelfAttention } from "../decoder/decoder.ts";
import type { WeightLoader } from "../weights.ts";

/** Attention of a layer, with grouped queries. */
export class Qwen2Attention implements SelfAttention {
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly oProj: Linear;

  constructor(
    readonly config: DecoderConfig,
    readonly layer: number,
    name: string,
    readonly rotary: RotaryEmbedding,
    weights: WeightLoader,
  ) {
    const { hiddenSize, numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = config;
    this.qProj = weights.linear(`${name}.q_proj`, heads * headDim, hiddenSize, { bias: true });
    this.kProj = weights.linear(`${name}.k_proj`, kvHeads * headDim, hiddenSize, { bias: true });
    this.vProj = weights.linear(`${name}.v_proj`, kvHeads * headDim, hiddenSize, { bias: true });
    this.oProj = weights.linear(`${name}.o_proj`, hiddenSize, heads * headDim);
  }

  forward(x: Tensor, input: LayerInput): Tensor {
    const { position } = input;
    const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = this.config;
    const [tokens] = x.shape; // x: [tokens, hiddenSize]

    const q = this.rotary.forward(this.qProj.forward(x).reshape(tokens, heads, headDim), { position });
    const k = this.rotary.forward(this.kProj.forward(x).reshape(tokens, kvHeads, headDim), { position });
    const v = this.vProj.forward(x).reshape(tokens, kvHeads, headDim);

    return this.oProj.forward(cachedAttention({ q, k, v }, this, input)); // [tokens, hiddenSize]
  }
}

/** A Qwen2 or Qwen2.5 decoder with its language-model head. */
export class Qwen2ForCausalLM extends DecoderForCausalLM {
  constructor(config: DecoderConfig, weights: WeightLoader) {
    super(config, weights, (layer, name, rotary) => new Qwen2Attention(config, layer, name, rotary, weights));
  }
}
