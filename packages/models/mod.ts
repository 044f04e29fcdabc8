/**
 * Language models in plain TypeScript on any `@mllm/core` backend: checkpoints, tokenizers, chat templates, sampling,
 * generation and conversations.
 *
 * @module
 */
export type { CausalLM, ForwardInput } from "./src/causal_lm.ts";
export { type ChatMessage, ChatSession, type ChatSessionOptions } from "./src/chat_session.ts";
export { type Checkpoint, openCheckpoint } from "./src/checkpoint.ts";
export * from "./src/config_reader.ts";
export type { DecoderConfig } from "./src/decoder/config.ts";
export { embeddedModelPath } from "./src/embedded_model.ts";
export { modelFamilies, type ModelFamily, type Modeling } from "./src/families.ts";
export type {
  GeneratedPiece,
  GenerateOptions,
  Generation,
  GenerationStats,
  StopReason,
} from "./src/generation/generate.ts";
export { type Evaluation, LanguageModel, type LanguageModelParts, type RunSettings } from "./src/language_model.ts";
export type { RunLimits } from "./src/generation/prompt_runs.ts";
export { type InspectedModel, inspectModel, loadModel, type LoadOptions, resolveSettings } from "./src/load_model.ts";
export { estimateMemory, type MemoryReport, type MemorySettings } from "./src/memory.ts";
export { type Perplexity, perplexity, type PerplexityOptions } from "./src/perplexity.ts";
export { type LoadProgress, WeightLoader, type WeightSource } from "./src/weights.ts";
export type { TextRange } from "./src/tokenizer/added_tokens.ts";
export { createTokenizer, type TokenizerSource } from "./src/tokenizer/create_tokenizer.ts";
export type { GgufMetadata } from "./src/tokenizer/from_gguf.ts";
export type { DecodeOptions, EncodeOptions, Tokenizer } from "./src/tokenizer/tokenizer.ts";
export { type GenerationDefaults, mergeSampling, readGenerationConfig } from "./src/generation_config.ts";
export {
  type CheckedSampling,
  describeRange,
  isInRange,
  type NumberRange,
  Sampler,
  samplingDefaults,
  type SamplingOptions,
  samplingRanges,
} from "./src/sampling/sampler.ts";
export { StopMatcher } from "./src/sampling/stop_matcher.ts";
export { ChatTemplate, type RenderOptions } from "./src/template/chat_template.ts";
export { encodeChat, type EncodeChatOptions } from "./src/template/encode_chat.ts";
export { StreamingDecoder } from "./src/tokenizer/streaming_decoder.ts";
