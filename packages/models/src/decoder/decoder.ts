import { add, type Embedding, type KvCache, type Linear, type RmsNorm, type RotaryEmbedding } from "@mllm/core";
import { type Scalar, takeRows, type Tensor, tidy } from "@mllm/core";
import type { CausalLM, ForwardInput } from "../causal_lm.ts";
import type { WeightLoader } from "../weights.ts";
import type { DecoderConfig } from "./config.ts";
import { GatedMlp } from "./gated_mlp.ts";

/** What a layer needs beside its input. */
export interface LayerInput {
  position: Scalar;
  cache: KvCache;
}

/** The part in which model families differ. x and the result: f32 [tokens, hiddenSize]. */
export interface SelfAttention {
  forward(x: Tensor, input: LayerInput): Tensor;
}

/** One pre-norm layer: h = x + attention(norm(x)); h + mlp(norm(h)). */
class DecoderLayer<Attention extends SelfAttention> {
  readonly inputNorm: RmsNorm;
  readonly postAttentionNorm: RmsNorm;
  readonly mlp: GatedMlp;

  constructor(config: DecoderConfig, name: string, readonly attention: Attention, weights: WeightLoader) {
    const { hiddenSize, intermediateSize, rmsNormEps } = config;
    this.inputNorm = weights.rmsNorm(`${name}.input_layernorm`, hiddenSize, rmsNormEps);
    this.postAttentionNorm = weights.rmsNorm(`${name}.post_attention_layernorm`, hiddenSize, rmsNormEps);
    this.mlp = new GatedMlp(`${name}.mlp`, hiddenSize, intermediateSize, weights);
  }

  forward(x: Tensor, input: LayerInput): Tensor {
    const h = add(x, this.attention.forward(this.inputNorm.forward(x), input));
    return add(h, this.mlp.forward(this.postAttentionNorm.forward(h)));
  }
}

/** Makes the attention of layer `layer`, whose weights start with `name`. */
export type MakeAttention<Attention extends SelfAttention> = (
  layer: number,
  name: string,
  rotary: RotaryEmbedding,
) => Attention;

/** A Llama-like decoder: embedding, pre-norm layers, final norm, language-model head. */
export class DecoderForCausalLM<Attention extends SelfAttention = SelfAttention> implements CausalLM {
  readonly embedTokens: Embedding;
  readonly layers: DecoderLayer<Attention>[] = [];
  readonly norm: RmsNorm;
  readonly lmHead: Linear;
  readonly #weights: WeightLoader;

  constructor(readonly config: DecoderConfig, weights: WeightLoader, makeAttention: MakeAttention<Attention>) {
    this.#weights = weights;
    const { vocabSize, hiddenSize, numHiddenLayers, rmsNormEps, tieWordEmbeddings } = config;
    const rotary = weights.rotaryEmbedding(config.rope);
    this.embedTokens = weights.embedding("model.embed_tokens", vocabSize, hiddenSize, tieWordEmbeddings);
    // The largest of all: loaded first, for a moment in memory twice, it does not make the peak.
    this.lmHead = tieWordEmbeddings
      ? weights.tiedHead("model.embed_tokens")
      : weights.linear("lm_head", vocabSize, hiddenSize);
    for (let i = 0; i < numHiddenLayers; i++) {
      const name = `model.layers.${i}`;
      const attention = makeAttention(i, `${name}.self_attn`, rotary);
      this.layers.push(new DecoderLayer(config, name, attention, weights));
    }
    this.norm = weights.rmsNorm("model.norm", hiddenSize, rmsNormEps);
  }

  /** One pass over `ids`; see {@linkcode ForwardInput}. */
  forward({ ids, position, last, cache, onHidden }: ForwardInput): Tensor {
    const owned = !onHidden; // else the residual streams belong to whoever gave the function
    let h = this.embedTokens.forward(ids); // [tokens, hiddenSize]
    for (const [i, layer] of this.layers.entries()) {
      const next = tidy(() => layer.forward(h, { position, cache }));
      if (owned || i === 0) h.free();
      h = next;
      onHidden?.(i, h);
    }
    const logits = tidy(() => {
      const rows = last === undefined ? h : takeRows(h, { start: last, count: 1 });
      return this.lmHead.forward(this.norm.forward(rows)); // [tokens or 1, vocabSize]
    });
    if (owned) h.free();
    return logits;
  }

  /** Releases the weights. */
  [Symbol.dispose](): void {
    this.#weights[Symbol.dispose]();
  }
}
