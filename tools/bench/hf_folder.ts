/**
 * Writes a GGUF model as a Hugging Face folder of f32 safetensors: what converters of other engines read.
 */
import { dequantize, encodeSafetensors, MllmError, readWeight, type TensorData, type TextList } from "@mllm/core";
import { type GgufMetadata, inspectModel } from "@mllm/models";

/** Values of `tokenizer.ggml.token_type` that are no part of the plain vocabulary: unknown, control, user-defined. */
const ADDED_TYPES = new Set([2, 3, 4]);

/** tokenizer.json of a byte-level BPE vocabulary. Throws `unsupported` for another kind. */
export function tokenizerJson(metadata: GgufMetadata): Record<string, unknown> {
  const model = metadata.get("tokenizer.ggml.model");
  if (model !== "gpt2") throw new MllmError("unsupported", `a tokenizer of the kind ${model} can't be written`);
  const tokens = [...metadata.get("tokenizer.ggml.tokens") as Iterable<string>];
  const types = metadata.get("tokenizer.ggml.token_type") as ArrayLike<number>;
  const merges = [...metadata.get("tokenizer.ggml.merges") as Iterable<string> ?? []];
  const isAdded = (id: number) => ADDED_TYPES.has(Number(types[id]));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: true };
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: tokens.flatMap((content, id) =>
      isAdded(id) ? [{ id, content, ...flags, special: Number(types[id]) !== 4 }] : []
    ),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: "",
      end_of_word_suffix: "",
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(tokens.flatMap((text, id) => isAdded(id) ? [] : [[text, id]])),
      merges,
    },
  };
}

/** Writes `config.json`, the tokenizer and `model.safetensors`. Throws what opening the model throws. */
export async function writeHfFolder(gguf: string, folder: string): Promise<void> {
  const { checkpoint } = await inspectModel(gguf);
  if (checkpoint.tokenizer.kind !== "gguf") throw new MllmError("invalid_argument", "the model is no GGUF file");
  await Deno.mkdir(folder, { recursive: true });
  const write = (name: string, value: unknown) => Deno.writeTextFile(`${folder}/${name}`, JSON.stringify(value));
  const tokens = checkpoint.tokenizer.metadata.get("tokenizer.ggml.tokens") as TextList;
  await write("config.json", { ...checkpoint.config, torch_dtype: "float32" });
  await write("tokenizer.json", tokenizerJson(checkpoint.tokenizer.metadata));
  await write("tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    eos_token: tokens.at(checkpoint.eosIds[0]),
    chat_template: checkpoint.chatTemplate,
  });
  const tensors = [...checkpoint.weights.values()].map((info): TensorData => {
    const count = info.shape.reduce((product, dim) => product * dim, 1);
    return { name: info.name, dtype: "f32", shape: info.shape, data: dequantize(info.dtype, readWeight(info), count) };
  });
  await Deno.writeFile(`${folder}/model.safetensors`, encodeSafetensors(tensors, { format: "pt" }));
}
