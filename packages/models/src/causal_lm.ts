import type { KvCache, Scalar, Tensor } from "@mllm/core";
import type { DecoderConfig } from "./decoder/config.ts";

/** What one forward pass of a decoder works on. */
export interface ForwardInput {
  /** Token ids, i32 [tokens]. */
  ids: Tensor;
  /** Position of the first of them in the sequence. */
  position: Scalar;
  /** Index of the last row (tokens - 1), or undefined for logits of every row. */
  last?: Scalar;
  cache: KvCache;
  /**
   * Called with the residual stream after each layer, f32 [tokens, hiddenSize], before the final norm. Whoever gives
   * this function owns the tensors it is called with.
   */
  onHidden?: (layer: number, hidden: Tensor) => void;
}

/** A decoder-only language model: modeling code plus weights. */
export interface CausalLM extends Disposable {
  readonly config: DecoderConfig;
  /** Logits, f32 [tokens, vocabSize], or [1, vocabSize] when `last` is given. */
  forward(input: ForwardInput): Tensor;
}
