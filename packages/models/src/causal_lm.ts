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
  /** Keys and values of the tokens before `position`; those of `ids` are appended. */
  cache: KvCache;
  /**
   * Called with the residual stream after each layer, f32 [tokens, hiddenSize], before the final norm. Whoever gives
   * this function owns the tensors it is called with.
   */
  onHidden?: (layer: number, hidden: Tensor) => void;
}

/** A decoder-only language model: modeling code plus weights. */
export interface CausalLM extends Disposable {
  /** Dimensions and constants that the weights were loaded with. */
  readonly config: DecoderConfig;
  /**
   * Runs every layer on the tokens of `input` and writes their keys and values into its cache. Eager, or recorded
   * inside `capture`.
   *
   * @returns logits, f32 [tokens, vocabSize], or [1, vocabSize] when `last` is given; the caller frees them
   * @throws {MllmError} `invalid_argument` when shapes do not fit, for an id outside the embedding table, or for
   * positions outside the cache
   */
  forward(input: ForwardInput): Tensor;
}
