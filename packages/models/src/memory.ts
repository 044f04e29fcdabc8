import { type Backend, formatMiB, KvCache, type KvDType, MllmError, type WeightInfo } from "@mllm/core";
import type { DecoderConfig } from "./decoder/config.ts";

/** What a model needs of memory, in bytes, known before anything is loaded. */
export interface MemoryReport {
  /** Weights as packed for the kernels; parts that are read from the mapped file count too. */
  weights: number;
  /** The KV cache at its full context; the system commits it page by page as it fills. */
  kv: number;
  /** Activations, and the int8 pages of the heads of a layer that prompts attend to at a time: an upper estimate. */
  arena: number;
  /** Sum of the three. */
  total: number;
}

/** What the estimate depends on beside the model. */
export interface MemorySettings {
  /** Tokens that the KV cache holds. */
  context: number;
  /** Most tokens of a prompt that run at once. */
  chunk: number;
  /** Element type of the keys in the KV cache. */
  keyDtype: KvDType;
  /** Element type of the values in the KV cache. */
  valueDtype: KvDType;
}

/** Bytes of one weight on the backend: packed when it is a matrix, f32 otherwise; none of a head that the table is. */
function weightBytes(backend: Backend, { dtype, shape, bytes, name }: WeightInfo, config: DecoderConfig): number {
  if (config.tieWordEmbeddings && name === "lm_head.weight") return 0;
  if (shape.length !== 2) return shape.reduce((product, dim) => product * dim, 4);
  const isTable = name === "model.embed_tokens.weight" && !config.tieWordEmbeddings;
  return isTable ? bytes : backend.packedSize(dtype, shape[0], shape[1]).bytes;
}

/**
 * Heads whose int8 pages are there at a time, as attention_i8.zig has it, on as many threads or fewer: where each has two
 * heads or more one of each thread, and those that do not go round; else all.
 */
function attendedHeads(kvHeads: number, threads: number): number {
  let most = 0;
  for (let t = 1; t <= threads; t++) most = Math.max(most, kvHeads < 2 * t ? kvHeads : t + kvHeads % t);
  return most;
}

/**
 * Estimates what loading a checkpoint will take: weights and KV cache from their shapes, activations from what a layer
 * has live at once, with 30 % on top.
 *
 * @param backend says how large packed weights are, and whether prompts attend in int8
 * @throws {MllmError} `unsupported` when a weight has a type that the backend can't pack
 */
export function estimateMemory(
  backend: Backend,
  config: DecoderConfig,
  weights: Iterable<WeightInfo>,
  { context, chunk, keyDtype, valueDtype }: MemorySettings,
): MemoryReport {
  const { numHiddenLayers, numAttentionHeads, numKeyValueHeads, headDim, hiddenSize, intermediateSize, vocabSize } =
    config;
  let sum = 0;
  for (const weight of weights) sum += weightBytes(backend, weight, config);
  const kv = KvCache.bytesFor({
    layers: numHiddenLayers,
    kvHeads: numKeyValueHeads,
    headDim,
    capacity: context,
    keyDtype,
    valueDtype,
  });
  // Live at once, per token: residual and its norm (with an int8 copy), then q, k, v, their rotated copies and the
  // attention's result, or gate, up and their product.
  const heads = (numAttentionHeads + numKeyValueHeads) * 2 * headDim;
  const perToken = 3 * hiddenSize + Math.max(heads + numAttentionHeads * headDim, 3 * intermediateSize);
  // As attention_i8_page.zig has it, with pages of 64 tokens.
  const perKey = 2 * headDim + headDim / 16 + 12;
  const attended = backend.activations === "i8"
    ? attendedHeads(numKeyValueHeads, backend.threads) * context * perKey
    : 0;
  const arena = Math.ceil(perToken * Math.min(chunk, context) * 4 * 1.3) + attended + vocabSize * 8;
  return { weights: sum, kv, arena, total: sum + kv + arena };
}

/** Most bytes that one evaluation returns: JavaScript's engine gives no array of much more. */
const EVALUATION_BYTES_MAX = 4 * 2 ** 30;

/**
 * Refuses an evaluation whose logits, f32 [tokens, vocabSize], and hidden states of `layers` layers take more than 4 GiB.
 *
 * @throws {MllmError} `out_of_memory` with the numbers
 */
export function checkEvaluation(
  { vocabSize, hiddenSize }: Pick<DecoderConfig, "vocabSize" | "hiddenSize">,
  tokens: number,
  layers: number,
): void {
  const perToken = (vocabSize + layers * hiddenSize) * 4;
  if (tokens * perToken <= EVALUATION_BYTES_MAX) return;
  const most = Math.floor(EVALUATION_BYTES_MAX / perToken);
  const what = layers > 0 ? "logits and hidden states" : "logits";
  throw new MllmError(
    "out_of_memory",
    `the ${what} of ${tokens} tokens take ${formatMiB(tokens * perToken)}, more than ${
      formatMiB(EVALUATION_BYTES_MAX)
    }`,
    { next: `Evaluate at most ${most} tokens at once${layers > 0 ? ", or leave the hidden states out" : ""}` },
  );
}

/** Refuses what can't fit. @throws {MllmError} `out_of_memory` with the numbers */
export function checkMemory({ weights, kv, arena, total }: MemoryReport, availableBytes: number, file: string): void {
  if (total <= availableBytes) return;
  throw new MllmError(
    "out_of_memory",
    `the model needs ${formatMiB(total)} (weights ${formatMiB(weights)}, KV cache ${formatMiB(kv)}, activations ${
      formatMiB(arena)
    }) and ${formatMiB(availableBytes)} are available`,
    { file, next: "Use a smaller `context`, a more strongly quantised file, or a smaller model" },
  );
}
