import { attention, kvAppend, type Linear, type Tensor } from "@mllm/core";
import type { DecoderConfig } from "./config.ts";
import type { LayerInput } from "./decoder.ts";

/** Queries f32 [tokens, heads, headDim], keys and values f32 [tokens, kvHeads, headDim], positions applied. */
export interface Projections {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

/** Attention of a layer. */
export interface CachedAttention {
  readonly config: DecoderConfig;
  readonly layer: number;
  /** Takes the result. Where it quantises that to int8, so does attention its products. */
  readonly oProj: Linear;
}

/**
 * Appends keys and values to the cache of a layer and attends to all of it, causally and within the layer's window.
 *
 * @returns f32 [tokens, heads * headDim], ready for the output projection
 */
export function cachedAttention(
  { q, k, v }: Projections,
  self: CachedAttention,
  input: LayerInput,
): Tensor {
  // k, v: [physical pages, kvHeads, pageSize, headDim]; the pages are those of all layers, from this one's first on
  const kv = input.cache.layers[self.layer];
  const { position } = input;
  kvAppend(k, input.cache.pages, kv.k, { position });
  kvAppend(v, input.cache.pages, kv.v, { position });
  return attendToCache(q, self, input);
}

/** What `cachedAttention` does once keys and values are appended; as the q8a that `oProj` reads, where the caller
 * `wantsCodes` and that is possible. */
export function attendToCache(
  q: Tensor,
  { config, layer, oProj }: CachedAttention,
  { position, cache }: LayerInput,
  wantsCodes = false,
): Tensor {
  const { numAttentionHeads, headDim, slidingWindows } = config;
  const { k, v } = cache.layers[layer];
  const options = {
    position,
    window: slidingWindows[layer],
    scale: 1 / Math.sqrt(headDim),
    activations: oProj.quantizesInput ? "i8" : "f32",
  } as const;
  if (wantsCodes && oProj.quantizesInput && headDim % 32 === 0) {
    return attention(q, k, v, cache.pages, { ...options, quantized: true });
  }
  return attention(q, k, v, cache.pages, options).reshape(q.shape[0], numAttentionHeads * headDim);
}
