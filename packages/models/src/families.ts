import { MllmError } from "@mllm/core";
import type { CausalLM } from "./causal_lm.ts";
import type { ConfigReader } from "./config_reader.ts";
import type { DecoderConfig } from "./decoder/config.ts";
import { readQwen2Config } from "./qwen2/config.ts";
import { Qwen2ForCausalLM } from "./qwen2/modeling.ts";
import { readQwen3Config } from "./qwen3/config.ts";
import { Qwen3ForCausalLM } from "./qwen3/modeling.ts";
import type { WeightLoader } from "./weights.ts";

/** What the engine knows of one architecture. */
export interface ModelFamily {
  /**
   * Reads and checks the fields that the architecture uses. Throws `invalid_file` or `unsupported`, naming the field.
   */
  readConfig(reader: ConfigReader): DecoderConfig;
  /** Loads the weights into the modeling code, which owns them from then on. Throws as `WeightLoader`'s methods. */
  build(config: DecoderConfig, weights: WeightLoader): CausalLM;
}

/** Architectures by the `model_type` of config.json. */
export const modelFamilies: Readonly<Record<string, ModelFamily>> = {
  qwen2: { readConfig: readQwen2Config, build: (config, weights) => new Qwen2ForCausalLM(config, weights) },
  qwen3: { readConfig: readQwen3Config, build: (config, weights) => new Qwen3ForCausalLM(config, weights) },
};

/** The family of a `model_type`. @throws {MllmError} `unsupported` */
export function modelFamily(modelType: string, file: string): ModelFamily {
  if (Object.hasOwn(modelFamilies, modelType)) return modelFamilies[modelType];
  throw new MllmError("unsupported", `models of the architecture "${modelType}" come in a later release`, {
    file,
    next: `This release runs ${Object.keys(modelFamilies).join(", ")}`,
  });
}
