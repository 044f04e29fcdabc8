import type { ConfigReader } from "../config_reader.ts";
import { type DecoderConfig, readDecoderConfig } from "../decoder/config.ts";

/** Reads the config of a dense Qwen2 or Qwen2.5 model. @throws {MllmError} naming file and field */
export function readQwen2Config(reader: ConfigReader): DecoderConfig {
  return readDecoderConfig(reader, { modelType: "qwen2", attentionBias: true });
}
