import { encodeGguf, encodeSafetensors, type GgufContent, type GgufInput, ggufU32, quantize } from "@mllm/core";
import { randomModel } from "../random_model/model.ts";
import { vocabularyMetadata } from "../random_model/vocabulary.ts";

/** Valid inputs, all made here: mutations of the same seed are the same on every machine. */

const utf8 = new TextEncoder();

const tinyShape = {
  vocabSize: 290,
  hiddenSize: 8,
  intermediateSize: 12,
  layers: 2,
  heads: 2,
  kvHeads: 1,
  headDim: 4,
  contextLength: 64,
  tied: true,
};

/** Small models that open, as GGUF content. */
export const ggufModels: readonly GgufContent[] = [
  randomModel({ shape: { ...tinyShape, architecture: "qwen3" }, type: "f16" }),
  randomModel({ shape: { ...tinyShape, architecture: "qwen2", tied: false }, type: "f32" }),
  withYarn(randomModel({ shape: { ...tinyShape, architecture: "qwen2", hiddenSize: 32 }, type: "q4_0" })),
];

function withYarn(content: GgufContent): GgufContent {
  return {
    ...content,
    metadata: {
      ...content.metadata,
      "qwen2.rope.scaling.type": "yarn",
      "qwen2.rope.scaling.factor": { type: "f32", value: 4 },
      "qwen2.rope.scaling.original_context_length": ggufU32(32),
      "tokenizer.ggml.eot_token_id": ggufU32(285),
    },
  };
}

const everyType: Record<string, GgufInput> = {
  text: "value",
  flag: true,
  u8: { type: "u8", value: 1 },
  i16: { type: "i16", value: -1 },
  f64: { type: "f64", value: 1.5 },
  u64: { type: "u64", value: 12345678901234n },
  words: ["a", "Ġthe", "漢字", ""],
  flags: [true, false, true],
  nested: [[Int32Array.of(1, 2, 3)], []] as GgufInput,
  bytes: Uint8Array.of(1, 2, 3),
  longs: BigInt64Array.of(1n, -1n),
  "general.alignment": ggufU32(64),
  "split.count": { type: "u16", value: 1 },
};

/** Files of many metadata and block types. */
export const ggufFiles: readonly Uint8Array[] = [
  encodeGguf({
    metadata: everyType,
    tensors: [
      { name: "a", dtype: "q8_0", shape: [2, 64], data: quantize("q8_0", new Float32Array(128)) },
      { name: "b", dtype: "q4_k", shape: [256], data: new Uint8Array(144) },
      { name: "c", dtype: "f32", shape: [1, 2, 3, 4], data: new Float32Array(24) },
    ],
  }),
  encodeGguf(ggufModels[0]),
  encodeGguf(ggufModels[2]),
];

/** Byte-level BPE, as GGUF metadata. */
export const bpeMetadata: Record<string, GgufInput> = vocabularyMetadata(300);

const pieces = [
  "<unk>",
  "<s>",
  "</s>",
  ...Array.from({ length: 256 }, (_, b) => `<0x${hex(b)}>`),
  "▁",
  "▁the",
  "th",
  "e",
];
const letters = [..."abcdefghijklmnopqrstuvwxyz"];

function hex(byte: number): string {
  return byte.toString(16).toUpperCase().padStart(2, "0");
}

/** Sentencepiece BPE with byte fallback, as GGUF metadata. */
export const spmMetadata: Record<string, GgufInput> = {
  "tokenizer.ggml.model": "llama",
  "tokenizer.ggml.tokens": [...pieces, ...letters, "he", "▁t"],
  "tokenizer.ggml.scores": Float32Array.from([...pieces, ...letters, "he", "▁t"], (_, i) => -i),
  "tokenizer.ggml.token_type": Int32Array.from([...pieces, ...letters, "he", "▁t"], (text, i) => (
    i === 0 ? 2 : i < 3 ? 3 : /^<0x/.test(text) ? 6 : 1
  )),
  "tokenizer.ggml.bos_token_id": ggufU32(1),
  "tokenizer.ggml.eos_token_id": ggufU32(2),
  "tokenizer.ggml.unknown_token_id": ggufU32(0),
  "tokenizer.ggml.add_bos_token": true,
  "tokenizer.ggml.add_space_prefix": true,
};

const vocabulary = bpeMetadata["tokenizer.ggml.tokens"] as string[];
const special = (content: string, id: number) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});
const words =
  "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** tokenizer.json of a byte-level BPE, and of a sentencepiece-like one. */
export const tokenizerJsons: readonly string[] = [
  JSON.stringify({
    version: "1.0",
    added_tokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map((text) =>
      special(text, vocabulary.indexOf(text))
    ),
    normalizer: { type: "NFC" },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: words }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
      ],
    },
    post_processor: { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: "",
      end_of_word_suffix: "",
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(vocabulary.map((text, id) => [text, id])),
      merges: bpeMetadata["tokenizer.ggml.merges"],
    },
  }),
  JSON.stringify({
    version: "1.0",
    added_tokens: [special("<unk>", 0), special("<s>", 1), special("</s>", 2)],
    normalizer: {
      type: "Sequence",
      normalizers: [{ type: "Prepend", prepend: "▁" }, { type: "Replace", pattern: { String: " " }, content: "▁" }],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries([...pieces, ...letters, "he", "▁t"].map((text, id) => [text, id])),
      merges: [["t", "h"], ["h", "e"], ["▁", "t"]],
    },
  }),
];

const chatml = "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}" +
  "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

/** Chat templates, our own, that use what published ones use. */
export const templates: readonly string[] = [
  chatml,
  `{%- set ns = namespace(last=none, count=0) %}
{%- for m in messages[::-1] %}{%- if ns.last is none and m.role == "user" %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- set ns.count = ns.count + m.content|length %}{%- endfor %}{{ ns.last }}/{{ ns.count }}
{%- for m in messages if m.role != 'system' %}{{ m.content|trim|upper }}{{ ", " if not loop.last }}{%- endfor %}`,
  `{%- macro show(x, depth=0) -%}{%- if x is mapping -%}{%- for k, v in x.items() -%}{{ k }}={{ show(v, depth + 1) }};
{%- endfor -%}{%- else -%}{{ x|tojson }}{%- endif -%}{%- endmacro -%}
{%- for t in tools or [] %}{{ show(t) }}{%- endfor %}{{ show(messages[0]) }}{% set x %}block{% endset %}{{ x * 3 }}
{%- if messages[0]['role'] not in ['user', 'system'] %}{{ raise_exception('first: ' ~ messages[0].role) }}{% endif %}`,
  `{{ bos_token }}{% for i in range(3) %}{{ loop.cycle('a', 'b') if loop is defined and loop.cycle else i }}{% endfor %}
{{ "a,b,c".split(",")|join("-") }} {{ [3, 1, 2]|sort|list }} {{ {"a": 1}.get("a") }} {{ strftime_now("%Y") }}
{%- for g in messages|groupby("role") %}{{ g }}{% endfor %}{{ messages|map(attribute="content")|join("|") }}`,
];

/** Files of a model folder that opens. */
export const folder: Readonly<Record<string, Uint8Array>> = hfFolder();

function hfFolder(): Record<string, Uint8Array> {
  const { hiddenSize: h, intermediateSize: m, vocabSize } = tinyShape;
  const f32 = (name: string, ...shape: number[]) => {
    const count = shape.reduce((product, dim) => product * dim, 1);
    return { name, dtype: "f32" as const, shape, data: new Float32Array(count) };
  };
  const layer = "model.layers.0.";
  const weights = encodeSafetensors([
    f32("model.embed_tokens.weight", vocabSize, h),
    f32(`${layer}mlp.up_proj.weight`, m, h),
    f32("model.norm.weight", h),
  ], { format: "pt" });
  const text = (value: unknown) => utf8.encode(JSON.stringify(value));
  return {
    "config.json": text({
      architectures: ["Qwen3ForCausalLM"],
      model_type: "qwen3",
      hidden_act: "silu",
      hidden_size: h,
      intermediate_size: m,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 4,
      vocab_size: vocabSize,
      max_position_embeddings: 64,
      rms_norm_eps: 1e-6,
      rope_parameters: { rope_theta: 10000, rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 },
      tie_word_embeddings: true,
      attention_bias: false,
      use_sliding_window: false,
      sliding_window: null,
      layer_types: ["full_attention"],
      dtype: "bfloat16",
      eos_token_id: [285, 287],
    }),
    "generation_config.json": text({ eos_token_id: [285], do_sample: true, temperature: 0.6, top_k: 20, top_p: 0.95 }),
    "tokenizer.json": utf8.encode(tokenizerJsons[0]),
    "tokenizer_config.json": text({
      bos_token: null,
      eos_token: { content: "<|im_end|>", special: true },
      chat_template: [{ name: "default", template: chatml }, { name: "tool_use", template: templates[2] }],
    }),
    "model.safetensors": weights,
  };
}
