import { MllmError } from "@mllm/core";
import { type GgufMetadata, tokenizerFromGguf } from "./from_gguf.ts";
import { tokenizerFromJson } from "./from_json.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * What a tokenizer is made from: the parsed tokenizer.json and tokenizer_config.json of a Hugging Face folder, or the
 * metadata of a GGUF file. Not checked yet: `createTokenizer` does.
 */
export type TokenizerSource =
  | { kind: "json"; tokenizer: unknown; config?: unknown }
  | { kind: "gguf"; metadata: GgufMetadata };

/**
 * Makes the tokenizer of a checkpoint; errors name `file` where it is given.
 *
 * @throws MllmError `invalid_file` for broken data, `unsupported` (by name) for kinds that this engine doesn't know
 */
export function createTokenizer(source: TokenizerSource, file?: string): Tokenizer {
  try {
    return source.kind === "json"
      ? tokenizerFromJson(source.tokenizer, source.config)
      : tokenizerFromGguf(source.metadata);
  } catch (error) {
    throw error instanceof MllmError && file !== undefined ? error.about(file) : error;
  }
}
