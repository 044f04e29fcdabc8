import { add, copy, fitSwiglu, type Linear, linearSwiglu, swiglu, takeRows, type Tensor, tidy } from "@mllm/core";
import type { ForwardInput } from "../causal_lm.ts";
import { DecoderForCausalLM, type SelfAttention } from "./decoder.ts";
import type { GatedMlp } from "./gated_mlp.ts";

/** Attention of a fast decoder: takes q8a rows where all its projections quantise, and frees what it made. */
export interface FastSelfAttention extends SelfAttention {
  /** Whether all projections of x quantise it. */
  readonly quantizesInput: boolean;
}

/** Whether each of these projections of one x quantises it: only then can all of them be given q8a rows. */
export function allQuantize(...projections: Linear[]): boolean {
  return projections.every(({ quantizesInput }) => quantizesInput);
}

/** Whether both products of a gate run as one op with it. */
function isPair(gate: Linear, up: Linear): boolean {
  const noBias = gate.bias === undefined && up.bias === undefined;
  return noBias && allQuantize(gate, up) && fitSwiglu(gate.weight, up.weight);
}

/** `GatedMlp.forward` with the gate fused; x is f32 or, where the projections quantise, q8a. */
function feedForward({ gateProj, upProj, downProj }: GatedMlp, x: Tensor): Tensor {
  return tidy(() => {
    const quantized = downProj.quantizesInput;
    if (isPair(gateProj, upProj)) {
      return downProj.forward(linearSwiglu(x, gateProj.weight, upProj.weight, { quantized })); // [tokens, hiddenSize]
    }
    const gate = gateProj.forward(x); // [tokens, intermediateSize]
    const up = upProj.forward(x);
    const gated = swiglu(gate, up, quantized ? { quantized } : { out: gate });
    if (quantized) gate.free();
    up.free();
    return downProj.forward(gated); // [tokens, hiddenSize]
  });
}

/**
 * The decoder of decoder.ts with the bits of its results, written for eager speed and little memory: one residual stream
 * that is added to in place, norms fused with the addition before and the quantising after them, and every tensor freed
 * at its last use instead of at the end of the layer.
 */
export class DecoderForCausalLMFast extends DecoderForCausalLM<FastSelfAttention> {
  override forward({ ids, position, last, cache, onHidden }: ForwardInput): Tensor {
    const h = this.embedTokens.forward(ids); // [tokens, hiddenSize]
    const [first] = this.layers;
    let x = first.inputNorm.forward(h, { quantized: first.attention.quantizesInput });
    for (const [i, { attention, postAttentionNorm, mlp }] of this.layers.entries()) {
      const attended = attention.forward(x, { position, cache });
      x.free();
      const quantized = allQuantize(mlp.gateProj, mlp.upProj);
      x = postAttentionNorm.forwardResidual(h, attended, { sum: h, quantized }).out;
      attended.free();
      const fed = feedForward(mlp, x);
      x.free();
      const next = this.layers.at(i + 1);
      if (next === undefined) add(h, fed, { out: h });
      else {
        const quantized = next.attention.quantizesInput;
        x = next.inputNorm.forwardResidual(h, fed, { sum: h, quantized }).out;
      }
      fed.free();
      onHidden?.(i, copy(h)); // the stream itself goes on changing
    }
    const logits = tidy(() => {
      const rows = last === undefined ? h : takeRows(h, { start: last, count: 1 });
      const normed = this.norm.forward(rows, { quantized: this.lmHead.quantizesInput });
      return this.lmHead.forward(normed); // [tokens or 1, vocabSize]
    });
    h.free();
    return logits;
  }
}
