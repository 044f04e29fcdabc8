import { MllmError, ropeContextMax, type RopeFrequencies, ropeFrequencies, ropeParameters } from "@mllm/core";
import { type ConfigReader, readBoolean, readInt, readNumber, readString } from "../config_reader.ts";

/** Dimensions and constants of a Llama-like decoder; the fields mean what Hugging Face's config.json means by them. */
export interface DecoderConfig {
  /** `model_type`: the architecture, a key of `modelFamilies`. */
  readonly modelType: string;
  /** Rows of the embedding table and columns of the logits; at least the tokenizer's ids, often padded. */
  readonly vocabSize: number;
  /** Width of the residual stream. */
  readonly hiddenSize: number;
  /** Width between the two projections of the MLP. */
  readonly intermediateSize: number;
  /** Decoder layers. */
  readonly numHiddenLayers: number;
  /** Query heads per layer. */
  readonly numAttentionHeads: number;
  /** Key and value heads per layer, a divisor of `numAttentionHeads` (grouped-query attention). */
  readonly numKeyValueHeads: number;
  /** Elements per head, even; `hiddenSize / numAttentionHeads` when the config has no `head_dim`. */
  readonly headDim: number;
  /**
   * Tokens of the longest sequence that the model is meant for: the config's number, or what linear or YaRN scaling
   * makes of the trained one if that is more. Bounds the context.
   */
  readonly maxPositionEmbeddings: number;
  /** Added to the mean square in every RMSNorm. */
  readonly rmsNormEps: number;
  /** The language-model head uses the embedding table. */
  readonly tieWordEmbeddings: boolean;
  /** The q, k and v projections have a bias. */
  readonly attentionBias: boolean;
  /** Inverse frequencies and attention factor of the rotary embedding. */
  readonly rope: RopeFrequencies;
  /** Sliding window of each layer, in tokens; undefined for full attention. */
  readonly slidingWindows: readonly (number | undefined)[];
}

/** In what families differ when their config is read. */
export interface DecoderDefaults {
  modelType: string;
  /** Value of `attention_bias` when the field is absent; families without the field fix it. */
  attentionBias: boolean;
}

/** Fields that say nothing about inference, or repeat what other fields say. */
const WITHOUT_INFLUENCE = [
  "architectures",
  "attention_dropout",
  "bos_token_id",
  "eos_token_id",
  "pad_token_id",
  "initializer_range",
  "torch_dtype",
  "transformers_version",
  "use_cache",
  "model_type",
  "_name_or_path",
];

/** The rotary embedding and the context that it reaches; errors name the file. */
function readRope(reader: ConfigReader): Pick<DecoderConfig, "rope" | "maxPositionEmbeddings"> {
  const positions = readInt(reader, "max_position_embeddings");
  reader.consume("rope_theta", "rope_scaling", "partial_rotary_factor");
  try {
    const parameters = ropeParameters(reader.fields);
    if (parameters.rotaryDim !== readInt(reader, "head_dim", { default: parameters.rotaryDim })) {
      throw new MllmError("unsupported", "a rotary embedding over a part of the head is not known here");
    }
    if (parameters.type === "dynamic") {
      throw new MllmError("unsupported", "rotary scaling of type dynamic is not supported", {
        next: `Remove it from the config: up to ${positions} tokens it changes nothing; beyond them use yarn`,
      });
    }
    const maxPositionEmbeddings = Math.min(ropeContextMax(parameters) ?? positions, 2 ** 31 - 1);
    return { rope: ropeFrequencies(parameters), maxPositionEmbeddings };
  } catch (error) {
    if (!(error instanceof MllmError) || error.file !== undefined) throw error;
    throw new MllmError(error.code, error.message, { file: reader.file, next: error.next, cause: error });
  }
}

function readSlidingWindows(reader: ConfigReader, layers: number): (number | undefined)[] {
  const used = readBoolean(reader, "use_sliding_window", { default: false });
  const window = reader.has("sliding_window") ? readInt(reader, "sliding_window") : undefined;
  const fullLayers = readInt(reader, "max_window_layers", { min: 0, default: layers });
  const types = reader.take("layer_types");
  if (types !== undefined) return readLayerTypes(reader, types, layers, window);
  if (!used) return new Array(layers).fill(undefined);
  for (const [name, value] of [["sliding_window", 4096], ["max_window_layers", 28]] as const) {
    if (!reader.has(name)) {
      reader.fail(name, `is missing although use_sliding_window is true: add it (transformers would take ${value})`);
    }
  }
  return Array.from({ length: layers }, (_, layer) => layer >= fullLayers ? window : undefined);
}

/** `layer_types` of newer configs decides per layer and has the last word. */
function readLayerTypes(reader: ConfigReader, types: unknown, layers: number, window?: number): (number | undefined)[] {
  if (!Array.isArray(types) || types.length !== layers) {
    return reader.fail("layer_types", `is not a list of ${layers} names`);
  }
  return types.map((type) => {
    if (type === "full_attention") return undefined;
    if (type === "sliding_attention" && window !== undefined) return window;
    return reader.fail(
      "layer_types",
      "holds something else than full_attention and (with sliding_window) sliding_attention",
    );
  });
}

/**
 * Reads and checks the fields that Llama-like decoders share.
 *
 * @throws {MllmError} `invalid_file` or `unsupported`, naming file and field
 */
export function readDecoderConfig(reader: ConfigReader, defaults: DecoderDefaults): DecoderConfig {
  reader.consume(...WITHOUT_INFLUENCE);
  readString(reader, "hidden_act", { oneOf: ["silu"] });
  const hiddenSize = readInt(reader, "hidden_size");
  const numAttentionHeads = readInt(reader, "num_attention_heads");
  const numKeyValueHeads = readInt(reader, "num_key_value_heads", { default: numAttentionHeads });
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    reader.fail(
      "num_key_value_heads",
      `(${numKeyValueHeads}) does not divide num_attention_heads (${numAttentionHeads})`,
    );
  }
  if (!reader.has("head_dim") && hiddenSize % numAttentionHeads !== 0) {
    reader.fail("num_attention_heads", `(${numAttentionHeads}) does not divide hidden_size (${hiddenSize})`);
  }
  const headDim = readInt(reader, "head_dim", { default: hiddenSize / numAttentionHeads });
  if (headDim % 2 !== 0) reader.fail("head_dim", `is ${headDim}; the rotary embedding needs an even number`);
  const numHiddenLayers = readInt(reader, "num_hidden_layers");
  return {
    modelType: defaults.modelType,
    vocabSize: readInt(reader, "vocab_size"),
    hiddenSize,
    intermediateSize: readInt(reader, "intermediate_size"),
    numHiddenLayers,
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    rmsNormEps: readNumber(reader, "rms_norm_eps", { min: 0, max: 1 }),
    tieWordEmbeddings: readBoolean(reader, "tie_word_embeddings", { default: false }),
    attentionBias: readBoolean(reader, "attention_bias", { default: defaults.attentionBias }),
    ...readRope(reader),
    slidingWindows: readSlidingWindows(reader, numHiddenLayers),
  };
}
