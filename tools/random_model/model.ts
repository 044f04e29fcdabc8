import {
  type DType,
  dtypes,
  type GgufContent,
  ggufF32,
  type GgufInput,
  type GgufTensorData,
  ggufU32,
  MllmError,
  quantize,
  writeGguf,
} from "@mllm/core";
import { Random } from "./random.ts";
import type { ModelShape } from "./shapes.ts";
import { vocabularyMetadata, vocabularySizeMin } from "./vocabulary.ts";

/** What a random model is made of. */
export interface RandomModelOptions {
  shape: ModelShape;
  /** Type of the matrices; rows that are no whole blocks become f16. */
  type: DType;
  seed?: number;
}

const deviation = 0.02;
/** `general.file_type` (gguf-py, constants.py, LlamaFileType). */
const fileTypes: Partial<Record<DType, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q8_0: 7,
  q5_0: 8,
  q5_1: 9,
  bf16: 32,
};
const poolValues = 1 << 20;
const pieceBytes = 1 << 20;

/**
 * Blocks of normal values of one dtype. A tensor is drawn from them block by block: hundreds of millions of values
 * at the cost of a copy, while no two rows are alike.
 */
class BlockPool {
  readonly #pools = new Map<DType, { blocks: Uint8Array; unit: number }>();

  constructor(private readonly seed: number) {}

  *draw(dtype: DType, count: number, stream: number): Generator<Uint8Array> {
    const { blocks, unit } = this.#pool(dtype);
    const random = new Random(this.seed, stream);
    const available = blocks.length / unit;
    const total = (count / dtypes[dtype].blockElements) * dtypes[dtype].blockBytes;
    for (let done = 0; done < total;) {
      const piece = new Uint8Array(Math.min(Math.floor(pieceBytes / unit) * unit, total - done));
      for (let at = 0; at < piece.length; at += unit) {
        const from = random.below(available) * unit;
        piece.set(blocks.subarray(from, from + Math.min(unit, piece.length - at)), at);
      }
      yield piece;
      done += piece.length;
    }
  }

  #pool(dtype: DType): { blocks: Uint8Array; unit: number } {
    let pool = this.#pools.get(dtype);
    if (!pool) {
      const blocks = quantize(dtype, new Random(this.seed, 0x706f6f6c).normal(poolValues, deviation));
      pool = { blocks, unit: (32 / dtypes[dtype].blockElements) * dtypes[dtype].blockBytes };
      this.#pools.set(dtype, pool);
    }
    return pool;
  }
}

/** Tensor names and shapes of a dense Qwen model in GGUF, in llama.cpp's order. */
function layout(shape: ModelShape): [name: string, dims: number[]][] {
  const { hiddenSize: h, intermediateSize: m, vocabSize, heads, kvHeads, headDim } = shape;
  const list: [string, number[]][] = [["token_embd.weight", [vocabSize, h]]];
  for (let i = 0; i < shape.layers; i++) {
    const add = (name: string, ...dims: number[]) => list.push([`blk.${i}.${name}`, dims]);
    add("attn_norm.weight", h);
    for (const [part, width] of [["q", heads], ["k", kvHeads], ["v", kvHeads]] as const) {
      add(`attn_${part}.weight`, width * headDim, h);
      if (shape.architecture === "qwen2") add(`attn_${part}.bias`, width * headDim);
    }
    if (shape.architecture === "qwen3") {
      add("attn_q_norm.weight", headDim);
      add("attn_k_norm.weight", headDim);
    }
    add("attn_output.weight", h, heads * headDim);
    add("ffn_norm.weight", h);
    add("ffn_gate.weight", m, h);
    add("ffn_up.weight", m, h);
    add("ffn_down.weight", h, m);
  }
  list.push(["output_norm.weight", [h]]);
  if (!shape.tied) list.push(["output.weight", [vocabSize, h]]);
  return list;
}

function tensor(name: string, dims: number[], type: DType, pool: BlockPool, stream: number): GgufTensorData {
  if (dims.length === 1) {
    const values = new Random(stream, 1).normal(dims[0], deviation);
    if (name.includes("norm")) values.forEach((value, i) => values[i] = 1 + value);
    return { name, dtype: "f32", shape: dims, data: values };
  }
  const dtype = dims[1] % dtypes[type].blockElements === 0 ? type : "f16";
  return { name, dtype, shape: dims, data: () => pool.draw(dtype, dims[0] * dims[1], stream) };
}

function metadata({ shape, type }: RandomModelOptions): Record<string, GgufInput> {
  const arch = shape.architecture;
  return {
    "general.architecture": arch,
    "general.type": "model",
    "general.name": `random ${arch} ${shape.layers} layers of ${shape.hiddenSize}`,
    "general.file_type": ggufU32(fileTypes[type] ?? 0),
    "general.quantization_version": ggufU32(2),
    [`${arch}.block_count`]: ggufU32(shape.layers),
    [`${arch}.context_length`]: ggufU32(shape.contextLength),
    [`${arch}.embedding_length`]: ggufU32(shape.hiddenSize),
    [`${arch}.feed_forward_length`]: ggufU32(shape.intermediateSize),
    [`${arch}.attention.head_count`]: ggufU32(shape.heads),
    [`${arch}.attention.head_count_kv`]: ggufU32(shape.kvHeads),
    [`${arch}.attention.layer_norm_rms_epsilon`]: ggufF32(1e-6),
    [`${arch}.attention.key_length`]: ggufU32(shape.headDim),
    [`${arch}.attention.value_length`]: ggufU32(shape.headDim),
    [`${arch}.rope.freq_base`]: ggufF32(1e6),
    [`${arch}.rope.dimension_count`]: ggufU32(shape.headDim),
    ...vocabularyMetadata(shape.vocabSize),
  };
}

/**
 * Content of a GGUF file of random weights that this engine and llama.cpp load. The same options give the same bytes.
 *
 * @throws MllmError `invalid_argument` for a vocabulary that is too small
 */
export function randomModel(options: RandomModelOptions): GgufContent {
  const { shape, type, seed = 1 } = options;
  if (shape.vocabSize < vocabularySizeMin || shape.layers < 1) {
    throw new MllmError("invalid_argument", `a random model needs ${vocabularySizeMin} tokens and a layer at least`);
  }
  const pool = new BlockPool(seed);
  const tensors = layout(shape).map(([name, dims], i) => tensor(name, dims, type, pool, seed * 100_003 + i));
  return { metadata: metadata(options), tensors };
}

/** Writes randomModel(options) to a file, piece by piece. Also throws MllmError `io`. */
export async function writeRandomModel(path: string, options: RandomModelOptions): Promise<void> {
  await writeGguf(path, randomModel(options));
}
