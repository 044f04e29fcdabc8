import { type GgufFile, type GgufValue, MllmError, openGguf, quoted, TextList, type WeightInfo } from "@mllm/core";
import type { Checkpoint } from "./checkpoint.ts";
import { ConfigReader, readInt, readInts, readNumber, readString } from "./config_reader.ts";
import { modelFamily } from "./families.ts";
import { normalizeConfig } from "./hf_config.ts";
import { endOfTurnTexts } from "./tokenizer/end_of_turn.ts";

const layerNames: Record<string, string> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};
const topNames: Record<string, string> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};
const architectures: Record<string, string> = {
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
};

const controlToken = 3;

/** Tensors that carry nothing that the config does not say. */
const ignoredTensors = /^blk\.\d+\.attn_rot_embd\.weight$/;

/** Opens a GGUF file (or split model) as a checkpoint; see openCheckpoint. */
export async function openGgufCheckpoint(path: string): Promise<Checkpoint> {
  const file = await openGguf(path);
  const metadata = new ConfigReader(Object.fromEntries(file.metadata), file.path);
  if (!metadata.has("general.architecture")) {
    throw new MllmError("invalid_file", "the GGUF file does not say its architecture (general.architecture)", {
      file: file.path,
      next: "Give a model file, not a vocabulary or an importance matrix",
    });
  }
  const arch = readString(metadata, "general.architecture");
  const kind = readString<string>(metadata, "general.type", { default: "model" });
  if (kind === "adapter") {
    throw new MllmError("unsupported", "a LoRA adapter, not a model", {
      file: file.path,
      next: "Merge it into its base model first",
    });
  }
  modelFamily(arch, file.path);
  if (file.tensors.size === 0) {
    throw new MllmError("invalid_file", "the GGUF file holds no tensors, only a vocabulary", {
      file: file.path,
      next: "Give a model file",
    });
  }
  const config = mapConfig(metadata, arch, file);
  const eosIds = endIds(metadata, file.metadata);
  if (eosIds.length > 0) config.eos_token_id = eosIds.length === 1 ? eosIds[0] : eosIds;
  if (metadata.has("tokenizer.ggml.bos_token_id")) {
    config.bos_token_id = readInt(metadata, "tokenizer.ggml.bos_token_id", { min: 0 });
  }
  const ignored = metadata.ignored().filter((key) => !/^(general|tokenizer|split|quantize)\./.test(key));
  return {
    path,
    format: "gguf",
    config,
    configFile: file.path,
    generationConfig: mapSampling(metadata, eosIds),
    weights: mapTensors(file, readInt(metadata, `${arch}.block_count`)),
    tokenizer: { kind: "gguf", metadata: file.metadata },
    chatTemplate: readTemplate(metadata, file.metadata, ignored),
    eosIds,
    ignored,
  };
}

/** One value, where some writers give one per layer: then all have to be equal. */
function readUniform(metadata: ConfigReader, key: string, max: number): number {
  const raw = metadata.fields[key];
  if (raw === undefined || typeof raw === "number") return readInt(metadata, key, { max });
  metadata.consume(key);
  const list = ArrayBuffer.isView(raw) || Array.isArray(raw) ? Array.from(raw as ArrayLike<unknown>) : [];
  const [first] = list;
  if (typeof first !== "number" || !(first >= 1 && first <= max)) return metadata.fail(key, "is not a size");
  if (!list.every((item) => item === first)) {
    throw new MllmError("unsupported", `${key} differs between layers`, {
      file: metadata.file,
      next: "This model needs a later release of the engine",
    });
  }
  return first;
}

/** `{arch}.` metadata as the fields of config.json. */
function mapConfig(metadata: ConfigReader, arch: string, file: GgufFile): Record<string, unknown> {
  const key = (name: string) => `${arch}.${name}`;
  const hidden = readInt(metadata, key("embedding_length"), { max: 1 << 18 });
  const layers = readInt(metadata, key("block_count"), { max: 4096 });
  const heads = readUniform(metadata, key("attention.head_count"), 1 << 14);
  const kvHeads = metadata.has(key("attention.head_count_kv"))
    ? readUniform(metadata, key("attention.head_count_kv"), 1 << 14)
    : heads;
  if (!metadata.has(key("attention.key_length")) && hidden % heads !== 0) {
    metadata.fail(key("attention.head_count"), `(${heads}) does not divide ${key("embedding_length")} (${hidden})`);
  }
  const headDim = readInt(metadata, key("attention.key_length"), { default: hidden / heads, max: 1 << 14 });
  if (readInt(metadata, key("attention.value_length"), { default: headDim }) !== headDim) {
    throw new MllmError("unsupported", `${key("attention.value_length")} differs from the key length`, {
      file: file.path,
    });
  }
  const embedding = file.tensors.get("token_embd.weight");
  if (!embedding || embedding.shape.length !== 2) {
    throw new MllmError("invalid_file", "the tensor token_embd.weight is missing or has not two dims", {
      file: file.path,
      next: "Give a model file; of a split model, the first part",
    });
  }
  const vocab = readInt(metadata, key("vocab_size"), { default: embedding.shape[0], max: 1 << 24 });
  if (vocab !== embedding.shape[0]) {
    metadata.fail(key("vocab_size"), `is ${vocab}, but token_embd.weight has ${embedding.shape[0]} rows`);
  }
  const rotary = readInt(metadata, key("rope.dimension_count"), { default: headDim });
  const config: Record<string, unknown> = {
    architectures: [architectures[arch]],
    model_type: arch,
    hidden_size: hidden,
    intermediate_size: readUniform(metadata, key("feed_forward_length"), 1 << 20),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    vocab_size: vocab,
    max_position_embeddings: readInt(metadata, key("context_length")),
    rms_norm_eps: round(readNumber(metadata, key("attention.layer_norm_rms_epsilon"), { min: 0, max: 1 })),
    rope_theta: round(readNumber(metadata, key("rope.freq_base"), { default: 10000, min: 1, max: 1e12 })),
    rope_scaling: mapRope(metadata, arch),
    hidden_act: "silu",
    tie_word_embeddings: !file.tensors.has("output.weight"),
  };
  if (rotary !== headDim) config.partial_rotary_factor = rotary / headDim;
  if (arch !== "qwen2") config.attention_bias = file.tensors.has("blk.0.attn_q.bias");
  return normalizeConfig(config, file.path);
}

/** GGUF keeps these as f32: back to the decimal that was meant, 9.999999974752427e-7 to 1e-6. */
function round(value: number): number {
  const short = Number(value.toPrecision(7));
  return Math.fround(short) === Math.fround(value) ? short : value;
}

/** Rotary scaling in Hugging Face's form; null where there is none. */
function mapRope(metadata: ConfigReader, arch: string): object | null {
  const key = (name: string) => `${arch}.rope.scaling.${name}`;
  metadata.consume(key("finetuned"));
  const type = readString(metadata, key("type"), {
    oneOf: ["none", "linear", "yarn"],
    default: metadata.has(`${arch}.rope.scale_linear`) ? "linear" : "none",
  });
  if (type === "none") {
    metadata.consume(key("factor"), key("original_context_length"), key("attn_factor"));
    return null;
  }
  const linear = readNumber(metadata, `${arch}.rope.scale_linear`, { default: 1, min: 1e-3, max: 1e4 });
  const factor = round(readNumber(metadata, key("factor"), { default: linear, min: 1e-3, max: 1e4 }));
  if (type === "linear") return { rope_type: "linear", factor };
  const scaling: Record<string, unknown> = { rope_type: "yarn", factor };
  if (metadata.has(key("original_context_length"))) {
    scaling.original_max_position_embeddings = readInt(metadata, key("original_context_length"));
  }
  if (metadata.has(key("attn_factor"))) {
    // llama.cpp multiplies YaRN's own factor (arXiv 2309.00071, eq. 22) by this one; Hugging Face replaces it.
    const extra = readNumber(metadata, key("attn_factor"), { min: 1e-3, max: 1e3 });
    if (extra !== 1) scaling.attention_factor = extra * (0.1 * Math.log(factor) + 1);
  }
  for (const name of ["beta_fast", "beta_slow"]) {
    const field = key(`yarn_${name}`);
    if (metadata.has(field)) scaling[name] = round(readNumber(metadata, field, { min: 0, max: 1e4 }));
  }
  return scaling;
}

function mapTensors(file: GgufFile, layers: number): Map<string, WeightInfo> {
  const weights = new Map<string, WeightInfo>();
  for (const [name, tensor] of file.tensors) {
    if (ignoredTensors.test(name)) continue;
    const layer = /^blk\.(0|[1-9]\d*)\.(\w+)\.(weight|bias)$/.exec(name);
    const top = layer ? null : /^(\w+)\.(weight|bias)$/.exec(name);
    const part = layer ? lookUp(layerNames, layer[2]) : top ? lookUp(topNames, top[1]) : undefined;
    if (part === undefined || (layer && Number(layer[1]) >= layers)) {
      throw new MllmError("unsupported", `tensor ${quoted(name)} has no place in this architecture`, {
        file: tensor.file,
        offset: tensor.offset,
        next: "The model needs a later release of the engine, or the file was written wrongly",
      });
    }
    const hfName = layer ? `model.layers.${layer[1]}.${part}.${layer[3]}` : `${part}.${top![2]}`;
    weights.set(hfName, { ...tensor, name: hfName });
  }
  return weights;
}

function lookUp(table: Record<string, string>, name: string): string | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

/** Every id that ends a reply: eos, eot and eom of the metadata, and control tokens that are known by their text. */
function endIds(reader: ConfigReader, metadata: ReadonlyMap<string, GgufValue>): number[] {
  const ids = new Set<number>();
  for (const name of ["eos_token_id", "eot_token_id", "eom_token_id"]) {
    for (const id of readInts(reader, `tokenizer.ggml.${name}`)) ids.add(id);
  }
  for (const id of readList(metadata.get("tokenizer.ggml.eos_token_ids"))) ids.add(id);
  const tokens = metadata.get("tokenizer.ggml.tokens");
  const types = metadata.get("tokenizer.ggml.token_type");
  if (tokens instanceof TextList && types instanceof Int32Array) {
    const count = Math.min(tokens.length, types.length);
    for (let id = 0; id < count; id++) {
      if (types[id] === controlToken && endOfTurnTexts.includes(tokens.at(id)!)) ids.add(id);
    }
  }
  return [...ids];
}

function readList(value: GgufValue | undefined): number[] {
  return value instanceof Int32Array || value instanceof Uint32Array ? [...value.slice(0, 64)] : [];
}

/** generation_config.json's fields from `general.sampling.*`, which newer conversions write. */
function mapSampling(metadata: ConfigReader, eosIds: number[]): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  if (eosIds.length > 0) result.eos_token_id = eosIds;
  const names: Record<string, string> = { temp: "temperature", top_k: "top_k", top_p: "top_p", min_p: "min_p" };
  for (const [from, to] of Object.entries(names)) {
    const key = `general.sampling.${from}`;
    if (metadata.has(key)) result[to] = round(readNumber(metadata, key, { min: 0, max: 1e6 }));
  }
  return result;
}

function readTemplate(
  reader: ConfigReader,
  metadata: ReadonlyMap<string, GgufValue>,
  ignored: string[],
): string | undefined {
  for (const key of metadata.keys()) if (key.startsWith("tokenizer.chat_template.")) ignored.push(key);
  return reader.has("tokenizer.chat_template") ? readString(reader, "tokenizer.chat_template") : undefined;
}
