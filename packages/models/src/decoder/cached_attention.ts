import { attention, kvAppend, type Tensor } from "@mllm/core";
import type { DecoderConfig } from "./config.ts";
import type { LayerInput } from "./decoder.ts";

/** Queries f32 [tokens, heads, headDim], keys and values f32 [tokens, kvHeads, headDim], positions applied. */
export interface Projections {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

/**
 * Appends keys and values to the cache of a layer and attends to all of it, causally and within the layer's window.
 *
 * @returns f32 [tokens, heads * headDim], ready for the output projection
 */
export function cachedAttention(
  { q, k, v }: Projections,
  layer: number,
  { numAttentionHeads, headDim, slidingWindows }: DecoderConfig,
  { position, cache }: LayerInput,
): Tensor {
  const kv = cache.layers[layer]; // k, v: [pages, kvHeads, pageSize, headDim]
  kvAppend(k, cache.pages, kv.k, { position });
  kvAppend(v, cache.pages, kv.v, { position });
  const options = { position, window: slidingWindows[layer], scale: 1 / Math.sqrt(headDim) };
  const out = attention(q, kv.k, kv.v, cache.pages, options);
  return out.reshape(q.shape[0], numAttentionHeads * headDim);
}
