/**
 * What the apps need of the engine, as interfaces: `open_engine.ts` fills them with `@mllm/models` and the backends,
 * tests fill them with a small fake. The shapes are those of `@mllm/models`, so a loaded `LanguageModel` fits as it is.
 */

/** Settings of the sampler; see `Sampler` of `@mllm/models`. */
export interface SamplingSettings {
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  frequencyPenalty: number;
  presencePenalty: number;
  penaltyLastN: number;
  seed: number;
}

export interface GenerateSettings {
  maxTokens?: number;
  sampling?: Partial<SamplingSettings>;
  stopStrings?: readonly string[];
  ignoreEos?: boolean;
  signal?: AbortSignal;
  onPrompt?: (done: number, total: number) => void;
}

/** Counts and times (ms) of one generation. */
export interface ReplyStats {
  promptTokens: number;
  cachedTokens: number;
  promptMs: number;
  generatedTokens: number;
  generateMs: number;
  stop: "eos" | "length" | "stop" | "aborted";
  contextFull: boolean;
}

export interface ChatTurn {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Conversation {
  messages: ChatTurn[];
  system: string | undefined;
  readonly lastStats: Readonly<ReplyStats> | undefined;
  send(text: string, options?: GenerateSettings): AsyncIterable<string>;
  clear(): void;
}

export interface GenerationRun extends AsyncIterable<{ id: number; text: string }> {
  readonly tokens: readonly number[];
  readonly text: string;
  readonly stats: Readonly<ReplyStats>;
}

/** Bytes that a model takes. */
export interface Memory {
  readonly weights: number;
  readonly kv: number;
  readonly arena: number;
}

export interface TextCodec {
  readonly vocabSize: number;
  readonly bosId?: number;
  encode(text: string, options?: { parseSpecial?: boolean; addSpecial?: boolean }): number[];
}

/** A loaded model. */
export interface LoadedModel extends Disposable {
  readonly context: number;
  readonly loadMs: number;
  readonly memory: Memory;
  readonly tokenizer: TextCodec;
  generate(prompt: readonly number[], options?: GenerateSettings): GenerationRun;
  evaluate(
    ids: readonly number[],
    options?: { hiddenStates?: boolean },
  ): Promise<{ logits: Float32Array; hiddenStates: Float32Array[] }>;
  forward(ids: readonly number[], position: number): Promise<Float32Array>;
  clearCache(): void;
  chat(options?: { system?: string; messages?: readonly ChatTurn[] }): Conversation;
}

/** How a model is to run. */
export interface RunOptions {
  /** `x86` or `x86:avx2`. */
  backend?: string;
  threads?: number;
  activations?: "i8" | "f32";
  context?: number;
  chunk?: number;
  eager?: boolean;
  kvDtype?: "f32" | "f16";
  onProgress?: (what: string, done: number, total: number) => void;
}

/** What a model's files say, without loading it. */
export interface ModelSummary {
  path: string;
  format: string;
  /** For people: `qwen3 28 layers`. */
  type: string;
  architecture: string;
  parameters: number;
  /** Bytes of the tensors in the files. */
  fileBytes: number;
  config: Record<string, unknown>;
  tensors: { name: string; dtype: string; shape: number[]; bytes: number }[];
  memory: Memory;
  context: number;
  hasChatTemplate: boolean;
  ignored: readonly string[];
}

/** What a backend finds on this machine. */
export interface BackendReport {
  name: string;
  description: string;
  available: boolean;
  reason?: string;
  cpu?: string;
  level: string;
  levels: readonly string[];
  allLevels: readonly string[];
  features: readonly string[];
  cores: number;
  memoryBytes: number;
  /** One line per (op, element type, phase): the kernel chosen and why. */
  choices: readonly string[];
}

/** The engine. */
export interface Engine {
  load(path: string, options: RunOptions): Promise<LoadedModel>;
  summarize(path: string, options: RunOptions): Promise<ModelSummary>;
  tokenizer(path: string): Promise<TextCodec>;
  /** Backend that runs when none is named. */
  readonly defaultBackend: string;
  backends(): Promise<BackendReport[]>;
  /** Size and settings that `bench` prints for an opened model. */
  describeRun(
    model: LoadedModel,
  ): { backend: string; level: string; threads: number; cpu: string; chunk: number; kvDtype: string };
  writeTensors(path: string, tensors: { name: string; shape: number[]; data: Float32Array }[]): Promise<void>;
}

/** A path the user gave, or the model that comes with the project. */
export interface ModelChoice {
  path: string;
  isEmbedded: boolean;
}
