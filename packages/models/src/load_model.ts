import {
  type Activations,
  Backend,
  type BackendPlugin,
  checkKvDType,
  type KvDType,
  MllmError,
  openBackend,
} from "@mllm/core";
import type { CausalLM } from "./causal_lm.ts";
import { checkNames, shown } from "./check_options.ts";
import { type Checkpoint, openCheckpoint } from "./checkpoint.ts";
import { ConfigReader, readString } from "./config_reader.ts";
import type { DecoderConfig } from "./decoder/config.ts";
import { type ModelFamily, modelFamily, type Modeling } from "./families.ts";
import { readGenerationConfig, uniteEosIds } from "./generation_config.ts";
import { LanguageModel, type RunSettings } from "./language_model.ts";
import { checkMemory, estimateMemory, type MemoryReport } from "./memory.ts";
import { ChatTemplate } from "./template/chat_template.ts";
import { createTokenizer } from "./tokenizer/create_tokenizer.ts";
import { type LoadProgress, WeightLoader } from "./weights.ts";

/** How to load and run a model. */
export interface LoadOptions {
  /** A plugin to open, or a backend that is open already (and stays open when the model is disposed). */
  backend: BackendPlugin | Backend;
  /** For a plugin: ISA level, see `doctor` for the list. Default: the best of this machine. */
  level?: string;
  /** For a plugin: threads including the caller. Default: one per physical core. */
  threads?: number;
  /** For a plugin: how quantised weights meet activations. Default "i8". */
  activations?: Activations;
  /** Tokens that the KV cache holds. Default: the model's limit, at most 8192. */
  context?: number;
  /**
   * Element type of keys and values in the KV cache. Default: f32 with f32 activations, else f16. q8_0 and q4_0 take
   * 54 % and 29 % of the memory of f16, are faster over long contexts, and need heads of a multiple of 32 elements.
   */
  kvDtype?: KvDType;
  /** Element type of the keys alone. Default: `kvDtype`, but "q8_0" where that is "q4_0": keys lose too much in 4 bits. */
  keyDtype?: KvDType;
  /** Element type of the values alone. Default: `kvDtype`. */
  valueDtype?: KvDType;
  /** Runs op by op instead of replaying captured programs. Default false. */
  eager?: boolean;
  /** Modeling code: "plain" to read and step through, "fast" for speed; the results are equal. Default "fast". */
  modeling?: Modeling;
  /** Most prompt tokens that run at once: a signal ends a prompt, and progress is told, after each. Default 1024. */
  chunk?: number;
  /** Bytes that may be used. Default: the memory that the system says is available. */
  memoryLimit?: number;
  /** Called while weights load. */
  onProgress?: LoadProgress;
}

const optionNames: Readonly<Record<keyof LoadOptions, true>> = {
  backend: true,
  level: true,
  threads: true,
  activations: true,
  context: true,
  kvDtype: true,
  keyDtype: true,
  valueDtype: true,
  eager: true,
  modeling: true,
  chunk: true,
  memoryLimit: true,
  onProgress: true,
};

const CONTEXT_DEFAULT_MAX = 8192;
/** Of 4096 tokens each run of 512 brings the pages before it into int8 again: with 1024 they are 6 % faster. */
const CHUNK_DEFAULT = 1024;

/** A checkpoint whose config is read and checked, before any weight is loaded. */
export interface InspectedModel {
  /** The opened files, weights not read. */
  checkpoint: Checkpoint;
  /** The code for its architecture. */
  family: ModelFamily;
  /** Dimensions and constants, checked. */
  config: DecoderConfig;
  /** Fields of config.json that the engine has no use for. */
  ignored: string[];
}

/**
 * Opens a checkpoint and reads its config.
 *
 * @throws {MllmError} `not_found`, `invalid_file`, or `unsupported` for an unknown architecture or config value
 */
export async function inspectModel(path: string): Promise<InspectedModel> {
  const checkpoint = await openCheckpoint(path);
  const reader = new ConfigReader(checkpoint.config, checkpoint.configFile);
  const family = modelFamily(readString(reader, "model_type"), checkpoint.path);
  const config = family.readConfig(reader);
  return { checkpoint, family, config, ignored: [...reader.ignored(), ...checkpoint.ignored] };
}

/**
 * Fills in the defaults of a load.
 *
 * @throws {MllmError} `invalid_argument` for a context or chunk out of range, or a type of the cache that is unknown or
 * does not suit the heads
 */
export function resolveSettings(
  options: Pick<LoadOptions, "context" | "chunk" | "eager" | "kvDtype" | "keyDtype" | "valueDtype">,
  config: DecoderConfig,
  activations: Activations,
): RunSettings {
  const whole = (name: string, value: number, max: number, what = "") => {
    if (Number.isInteger(value) && value >= 1 && value <= max) return value;
    throw new MllmError(
      "invalid_argument",
      `${name} must be a whole number from 1 to ${max}${what}, not ${shown(value)}`,
    );
  };
  for (const name of ["kvDtype", "keyDtype", "valueDtype"] as const) {
    if (options[name] !== undefined) checkKvDType(`\`${name}\``, options[name], config.headDim);
  }
  const limit = config.maxPositionEmbeddings;
  const kvDtype = options.kvDtype ?? (activations === "f32" ? "f32" : "f16");
  // Keys lose too much in 4 bits (perplexity +4 % on Qwen2.5): "q4_0" for both is about the values.
  const keyDtype = kvDtype === "q4_0" ? "q8_0" : kvDtype;
  return {
    context: whole("`context`", options.context ?? Math.min(limit, CONTEXT_DEFAULT_MAX), limit, " (the model's limit)"),
    chunk: whole("`chunk`", options.chunk ?? CHUNK_DEFAULT, 1 << 16),
    eager: options.eager ?? false,
    keyDtype: options.keyDtype ?? keyDtype,
    valueDtype: options.valueDtype ?? kvDtype,
  };
}

/** Memory that the system can give now; what the backend says the machine has where that may not be asked. */
function availableMemory(backend: Backend): number {
  // Asked for only where it is granted: a prompt in the middle of loading would be no help.
  const { state } = Deno.permissions.querySync({ name: "sys", kind: "systemMemoryInfo" });
  const limit = backend.device.memoryBytes || Infinity; // of the control group too
  return state === "granted" ? Math.min(Deno.systemMemoryInfo().available, limit) : limit;
}

async function buildNetwork(
  { checkpoint, family, config }: InspectedModel,
  backend: Backend,
  options: LoadOptions,
): Promise<CausalLM> {
  const { modeling = "fast", onProgress } = options;
  if (!Object.hasOwn(family.build, modeling)) {
    throw new MllmError("invalid_argument", `\`modeling\` must be "plain" or "fast", not ${JSON.stringify(modeling)}`);
  }
  const weights = new WeightLoader(backend, checkpoint, onProgress);
  try {
    const network = family.build[modeling](config, weights);
    await weights.load();
    return network;
  } catch (error) {
    weights[Symbol.dispose]();
    throw error;
  }
}

async function load(path: string, options: LoadOptions, backend: Backend, owned: boolean): Promise<LanguageModel> {
  const start = performance.now();
  const inspected = await inspectModel(path);
  const { checkpoint, config } = inspected;
  const settings = resolveSettings(options, config, backend.activations);
  const tokenizer = createTokenizer(checkpoint.tokenizer, checkpoint.path);
  const template = checkpoint.chatTemplate === undefined ? undefined : new ChatTemplate(checkpoint.chatTemplate);
  const memory: MemoryReport = estimateMemory(backend, config, checkpoint.weights.values(), settings);
  checkMemory(memory, options.memoryLimit ?? availableMemory(backend), checkpoint.path);
  const file = checkpoint.format === "gguf" ? checkpoint.configFile : `${checkpoint.path}/generation_config.json`;
  const defaults = readGenerationConfig(checkpoint.generationConfig, file);
  const network = await buildNetwork(inspected, backend, options);
  try {
    return new LanguageModel({
      backend,
      network,
      checkpoint,
      tokenizer,
      template,
      eosIds: uniteEosIds(checkpoint.eosIds, defaults.eosIds, tokenizer.eosIds),
      samplingDefaults: defaults.sampling,
      memory,
      settings,
      loadMs: performance.now() - start,
      ownsBackend: owned,
    });
  } catch (error) {
    network[Symbol.dispose]();
    throw error;
  }
}

/**
 * Loads a model: a Hugging Face folder (config.json, safetensors, tokenizer.json) or a GGUF file, as it is.
 *
 * @param path the folder or file
 * @throws {MllmError} `not_found` or `invalid_file` for a missing or broken file, `unsupported` for an architecture
 * that this release does not run, `out_of_memory` (with the numbers) when it does not fit, `invalid_argument` for bad
 * options
 * @example
 * ```ts
 * import { loadModel } from "@mllm/models";
 * import { x86 } from "@mllm/backend-x86";
 *
 * using model = await loadModel("models/Qwen3-0.6B", { backend: x86 });
 * ```
 */
export async function loadModel(path: string, options: LoadOptions): Promise<LanguageModel> {
  checkNames("loadModel", options ?? {}, optionNames);
  const { backend: given, level, threads, activations } = options ?? {};
  if (given instanceof Backend) return await load(path, options, given, false);
  const backend = await openBackend(given, { level, threads, activations });
  try {
    return await load(path, options, backend, true);
  } catch (error) {
    backend[Symbol.dispose]();
    throw error;
  }
}
