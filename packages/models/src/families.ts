import { MllmError, quoted } from "@mllm/core";
import type { CausalLM } from "./causal_lm.ts";
import type { ConfigReader } from "./config_reader.ts";
import type { DecoderConfig } from "./decoder/config.ts";
import { readQwen2Config } from "./qwen2/config.ts";
import { Qwen2ForCausalLM } from "./qwen2/modeling.ts";
import { Qwen2ForCausalLMFast } from "./qwen2/modeling_fast.ts";
import { readQwen3Config } from "./qwen3/config.ts";
import { Qwen3ForCausalLM } from "./qwen3/modeling.ts";
import { Qwen3ForCausalLMFast } from "./qwen3/modeling_fast.ts";
import type { WeightLoader } from "./weights.ts";

/**
 * Which of two modeling codes of equal results: "plain" (modeling.ts) reads like the paper, "fast" (modeling_fast.ts) uses
 * fused and in-place ops and frees tensors early.
 */
export type Modeling = "plain" | "fast";

/** What the engine knows of one architecture. */
export interface ModelFamily {
  /**
   * Reads and checks the fields that the architecture uses. Throws `invalid_file` or `unsupported`, naming the field.
   */
  readConfig(reader: ConfigReader): DecoderConfig;
  /** Loads the weights into modeling code, which owns them from then on. Throws as `WeightLoader`'s methods. */
  build: Readonly<Record<Modeling, (config: DecoderConfig, weights: WeightLoader) => CausalLM>>;
}

/** Architectures by the `model_type` of config.json. */
export const modelFamilies: Readonly<Record<string, ModelFamily>> = {
  qwen2: {
    readConfig: readQwen2Config,
    build: {
      plain: (config, weights) => new Qwen2ForCausalLM(config, weights),
      fast: (config, weights) => new Qwen2ForCausalLMFast(config, weights),
    },
  },
  qwen3: {
    readConfig: readQwen3Config,
    build: {
      plain: (config, weights) => new Qwen3ForCausalLM(config, weights),
      fast: (config, weights) => new Qwen3ForCausalLMFast(config, weights),
    },
  },
};

/**
 * The family of a `model_type`.
 *
 * @throws {MllmError} `unsupported` for an architecture that no release, or only a later one, runs
 */
export function modelFamily(modelType: string, file: string): ModelFamily {
  if (Object.hasOwn(modelFamilies, modelType)) return modelFamilies[modelType];
  const next = "This release runs Qwen2, Qwen2.5 and Qwen3 (dense)";
  const later = (what: string): never => {
    throw new MllmError("unsupported", `${what} in a later release`, { file, next });
  };
  if (/^llama/.test(modelType)) later("Llama models come");
  if (/^gemma/.test(modelType)) later(`this is a Gemma model (${quoted(modelType)}); Gemma comes`);
  if (/^(clip|mmproj)$/.test(modelType)) later("this is the vision part of a model (mmproj), not a model; images come");
  if (/moe|vl$|phi3|mistral/.test(modelType)) later(`models of the architecture ${quoted(modelType)} come`);
  throw new MllmError("unsupported", `the architecture ${quoted(modelType)} is not supported`, { file, next });
}
