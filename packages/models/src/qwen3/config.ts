import type { ConfigReader } from "../config_reader.ts";
import { type DecoderConfig, readDecoderConfig } from "../decoder/config.ts";

/** Reads the config of a dense Qwen3 model. @throws {MllmError} naming file and field */
export function readQwen3Config(reader: ConfigReader): DecoderConfig {
  return readDecoderConfig(reader, { modelType: "qwen3", attentionBias: false });
}
