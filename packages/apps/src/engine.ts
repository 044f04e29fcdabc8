/**
 * What the apps need of the engine, as interfaces: `open_engine.ts` fills them with `@mllm/models` and the backends,
 * tests fill them with a small fake. The shapes are those of `@mllm/models`, so a loaded `LanguageModel` fits as it is.
 */

import type { KvDType, Program } from "@mllm/core";
import type { GenerateOptions, GenerationStats, SamplingOptions } from "@mllm/models";

/** Settings of the sampler. */
export type SamplingSettings = SamplingOptions;

/** How to continue a prompt. */
export type GenerateSettings = GenerateOptions;

/** Counts and times (ms) of one generation. */
export type ReplyStats = GenerationStats;

/** One message of a conversation. */
export interface ChatTurn {
  /** Who says it. */
  role: "system" | "user" | "assistant";
  /** What is said. */
  content: string;
}

/** A conversation with a model. */
export interface Conversation {
  /** User and assistant in turn. */
  messages: ChatTurn[];
  /** System prompt. */
  system: string | undefined;
  /** About the last reply. */
  readonly lastStats: Readonly<ReplyStats> | undefined;
  /** Says something and streams the reply. */
  send(text: string, options?: GenerateSettings): AsyncIterable<string>;
  /** Forgets the messages. */
  clear(): void;
}

/** A running generation. */
export interface GenerationRun extends AsyncIterable<{ id: number; text: string }> {
  /** New tokens so far. */
  readonly tokens: readonly number[];
  /** Their text. */
  readonly text: string;
  /** Counts and times so far. */
  readonly stats: Readonly<ReplyStats>;
}

/** Bytes that a model takes. */
export interface Memory {
  /** Weights, as packed. */
  readonly weights: number;
  /** KV cache. */
  readonly kv: number;
  /** Activations. */
  readonly arena: number;
}

/** Text to token ids. */
export interface TextCodec {
  /** Number of token ids. */
  readonly vocabSize: number;
  /** First token of a sequence, where there is one. */
  readonly bosId?: number;
  /** Token ids of a text. */
  encode(text: string, options?: { parseSpecial?: boolean; addSpecial?: boolean }): number[];
}

/** A loaded model. */
export interface LoadedModel extends Disposable {
  /** Tokens that fit, prompt and reply together. */
  readonly context: number;
  /** The largest context that it could be loaded with. */
  readonly contextLimit: number;
  /** Time that loading took. */
  readonly loadMs: number;
  /** What it takes. */
  readonly memory: Memory;
  /** Its tokenizer. */
  readonly tokenizer: TextCodec;
  /** What its files recommend for sampling. */
  readonly samplingDefaults: Readonly<Partial<SamplingSettings>>;
  /** Continues a prompt. */
  generate(prompt: readonly number[], options?: GenerateSettings): GenerationRun;
  /** Logits [tokens, vocab] and hidden states [tokens, hidden] of a sequence. */
  evaluate(
    ids: readonly number[],
    options?: { hiddenStates?: boolean },
  ): Promise<{ logits: Float32Array; hiddenStates: Float32Array[] }>;
  /** Negative log-likelihood of each token of a sequence but the first, in nats. */
  score(ids: readonly number[]): Promise<Float32Array>;
  /** Runs tokens at a position; logits of the last one. */
  forward(ids: readonly number[], position: number): Promise<Float32Array>;
  /** Forgets what has run. */
  clearCache(): void;
  /** Starts a conversation. */
  chat(options?: { system?: string; messages?: readonly ChatTurn[] }): Conversation;
}

/** A captured program of a model, as a benchmark looks at it. */
export type CapturedProgram = Pick<Program, "commands" | "arenaBytes" | "lowerBoundBytes" | "profile">;

/** How a model is to run. */
export interface RunOptions {
  /** `x86` or `x86:avx2`. */
  backend?: string;
  /** Default: one per core. */
  threads?: number;
  /** How quantised weights meet activations. */
  activations?: "i8" | "f32";
  /** Tokens of the KV cache. */
  context?: number;
  /** Tokens of a prompt that run at once. */
  chunk?: number;
  /** Op by op instead of captured. */
  eager?: boolean;
  /** Code of the model, of equal results: to read, or for speed. */
  modeling?: "plain" | "fast";
  /** Element type of the KV cache. */
  kvDtype?: KvDType;
  /** Of the keys alone. */
  keyDtype?: KvDType;
  /** Of the values alone. */
  valueDtype?: KvDType;
  /** Called while loading. */
  onProgress?: (what: string, done: number, total: number) => void;
}

/** What a model's files say, without loading it. */
export interface ModelSummary {
  /** Folder or file. */
  path: string;
  /** `huggingface` or `gguf`. */
  format: string;
  /** For people: `qwen3 28 layers`. */
  type: string;
  /** The config's model_type. */
  architecture: string;
  /** Elements of all tensors. */
  parameters: number;
  /** Bytes of the tensors in the files. */
  fileBytes: number;
  /** In the form of config.json. */
  config: Record<string, unknown>;
  /** All tensors. */
  tensors: { name: string; dtype: string; shape: number[]; bytes: number }[];
  /** What loading it would take. */
  memory: Memory;
  /** Element types of the KV cache. */
  keyDtype: KvDType;
  /** Likewise. */
  valueDtype: KvDType;
  /** With this context. */
  context: number;
  /** The largest that there could be. */
  contextLimit: number;
  /** Whether it can hold a conversation. */
  hasChatTemplate: boolean;
  /** Config fields and files without use. */
  ignored: readonly string[];
}

/** What a backend finds on this machine. */
export interface BackendReport {
  /** As in `--backend`. */
  name: string;
  /** One sentence. */
  description: string;
  /** Whether it can run here. */
  available: boolean;
  /** Why not. */
  reason?: string;
  /** Name of the CPU. */
  cpu?: string;
  /** Name of its micro-architecture, by which the kernel selector knows it. */
  microarchitecture?: string;
  /** ISA level in use. */
  level: string;
  /** ISA levels of this machine. */
  levels: readonly string[];
  /** Its other levels, each with the reason why it can't run here. */
  missing: Readonly<Record<string, string>>;
  /** CPU features found. */
  features: readonly string[];
  /** Cores. */
  cores: number;
  /** Memory of the machine. */
  memoryBytes: number;
  /** One line per (op, element type, phase): the kernel chosen and why. */
  choices: readonly string[];
  /** One line about the table of `mllm tune`: what it holds for this machine, or why it is not used. */
  tuned?: string;
}

/** Told of every run while kernels are tuned. */
export type TuneProgress = (what: string, done: number, total: number) => void;

/** What `tune` left behind. */
export interface TuneReport {
  /** Where the table is. */
  file: string;
  /** Comparisons that were made, and those that were there already. */
  measured: number;
  /** Likewise. */
  known: number;
  /** Groups of comparisons that were given up because the machine had other work. */
  disturbed: number;
  /** Whether the signal ended it. */
  interrupted: boolean;
  /** One line per choice that differs from the default. */
  rows: readonly string[];
}

/** The engine. */
export interface Engine {
  /** Loads a model. */
  load(path: string, options: RunOptions): Promise<LoadedModel>;
  /** Reads what a model is. */
  summarize(path: string, options: RunOptions): Promise<ModelSummary>;
  /** Opens only the tokenizer of a model. */
  tokenizer(path: string): Promise<TextCodec>;
  /** Backend that runs when none is named. */
  readonly defaultBackend: string;
  /** What every backend finds here, and the kernels that it would choose; the options are for the one they name. */
  backends(options: RunOptions): Promise<BackendReport[]>;
  /**
   * Measures which kernels are fastest for the shapes of a model (without a path: of usual sizes) and keeps the result
   * for this machine; what an earlier run has measured is not done again, unless `force`. The signal ends it, with a
   * report; while the model loads it throws the signal's reason.
   */
  tune(
    path: string | undefined,
    options: RunOptions & { force: boolean; onTune: TuneProgress; signal?: AbortSignal },
  ): Promise<TuneReport>;
  /** Size and settings that `bench` prints for an opened model. */
  describeRun(
    model: LoadedModel,
  ): {
    backend: string;
    level: string;
    threads: number;
    cpu: string;
    chunk: number;
    keyDtype: string;
    valueDtype: string;
  };
  /**
   * Starts watching what activations take; the result tells it in bytes: the arenas of the captured programs and, of
   * eager tensors, the most at one time since.
   */
  watchActivations(model: LoadedModel): () => number;
  /** The programs that an opened model has captured so far, by name; the map grows as it runs. */
  programs(model: LoadedModel): ReadonlyMap<string, CapturedProgram>;
  /** Writes f32 tensors as a safetensors file. */
  writeTensors(path: string, tensors: { name: string; shape: number[]; data: Float32Array }[]): Promise<void>;
}

/** A path the user gave, or the model that comes with the project. */
export interface ModelChoice {
  /** Folder or file. */
  path: string;
  /** Whether it is the demonstration model. */
  isEmbedded: boolean;
}
