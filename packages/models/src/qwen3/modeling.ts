/**
 * Qwen3, dense (Qwen3 Technical Report, arXiv 2505.09388; reference implementation: Hugging Face transformers,
 * models/qwen3/modeling_qwen3.py): a Llama-like decoder whose queries and keys are RMS-normalised per head before the
 * rotary embedding. Names of weights and config fields are Hugging Face's.
 */
import type { Linear, RmsNorm, RotaryEmbedding, Tensor } from "@mllm/core";
import { cachedAttention } from "../decoder/cached_attention.ts";
import type { DecoderConfig } from "../decoder/config.ts";
import { DecoderForCausalLM, type LayerInput, type SelfAttention } from "../decoder/decoder.ts";
import type { WeightLoader } from "../weights.ts";

/** Attention of a layer, with grouped queries. */
export class Qwen3Attention implements SelfAttention {
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly oProj: Linear;
  readonly qNorm: RmsNorm;
  readonly kNorm: RmsNorm;

  constructor(
    readonly config: DecoderConfig,
    readonly layer: number,
    name: string,
    readonly rotary: RotaryEmbedding,
    weights: WeightLoader,
  ) {
    const { hiddenSize, numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, attentionBias: bias } = config;
    this.qProj = weights.linear(`${name}.q_proj`, heads * headDim, hiddenSize, { bias });
    this.kProj = weights.linear(`${name}.k_proj`, kvHeads * headDim, hiddenSize, { bias });
    this.vProj = weights.linear(`${name}.v_proj`, kvHeads * headDim, hiddenSize, { bias });
    this.oProj = weights.linear(`${name}.o_proj`, hiddenSize, heads * headDim, { bias });
    this.qNorm = weights.rmsNorm(`${name}.q_norm`, headDim, config.rmsNormEps);
    this.kNorm = weights.rmsNorm(`${name}.k_norm`, headDim, config.rmsNormEps);
  }

  forward(x: Tensor, input: LayerInput): Tensor {
    const { position } = input;
    const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = this.config;
    const [tokens] = x.shape; // x: [tokens, hiddenSize]

    let q = this.qProj.forward(x).reshape(tokens, heads, headDim);
    let k = this.kProj.forward(x).reshape(tokens, kvHeads, headDim);
    const v = this.vProj.forward(x).reshape(tokens, kvHeads, headDim);
    q = this.rotary.forward(this.qNorm.forward(q), { position });
    k = this.rotary.forward(this.kNorm.forward(k), { position });

    return this.oProj.forward(cachedAttention({ q, k, v }, this, input)); // [tokens, hiddenSize]
  }
}

/** A Qwen3 decoder with its language-model head. */
export class Qwen3ForCausalLM extends DecoderForCausalLM {
  constructor(config: DecoderConfig, weights: WeightLoader) {
    super(config, weights, (layer, name, rotary) => new Qwen3Attention(config, layer, name, rotary, weights));
  }
}
