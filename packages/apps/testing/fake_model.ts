/**
 * A model for tests of the apps: no weights, the same interface. It "tokenizes" by characters and answers by rules:
 * what it says is `You said: …`, with special words for long, slow, failing and wide replies.
 */
import { MllmError } from "@mllm/core";
import type {
  BackendReport,
  CapturedProgram,
  ChatTurn,
  Conversation,
  Engine,
  GenerateSettings,
  GenerationRun,
  LoadedModel,
  ModelSummary,
  ReplyStats,
  RunOptions,
  TuneReport,
} from "../src/engine.ts";

const EOS = 0;

function idsOf(text: string): number[] {
  return Array.from(text, (c) => c.codePointAt(0)!);
}

/** What the fake answers to a conversation. */
export function fakeReply(messages: readonly ChatTurn[], system?: string): string {
  const text = messages.at(-1)?.content ?? "";
  if (text === "long") return Array.from({ length: 400 }, (_, i) => `word${i}`).join(" ");
  if (text === "wide") return "漢字かな交じり文の長い返事です。".repeat(8);
  if (text === "system?") return system ?? "none";
  if (text === "count?") return `${messages.length} messages`;
  return text.length > 200 ? `You said ${text.length} characters.` : `You said: ${text}`;
}

export interface FakeOptions {
  context?: number;
  /** Time that a token takes, ms. */
  tokenMs?: number;
}

export class FakeModel implements LoadedModel {
  readonly loadMs = 12;
  readonly memory = { weights: 3 << 20, kv: 1 << 20, arena: 1 << 19 };
  readonly context: number;
  readonly contextLimit = 32768;
  readonly tokenizer = { vocabSize: 0x110000, encode: (text: string) => idsOf(text) };
  readonly samplingDefaults = { temperature: 0.6, topK: 20 };
  readonly calls: GenerateSettings[] = [];
  isDisposed = false;
  tokenMs: number;
  #cached: number[] = [];

  constructor({ context = 8192, tokenMs = 0 }: FakeOptions = {}) {
    this.context = context;
    this.tokenMs = tokenMs;
  }

  generate(prompt: readonly number[], options: GenerateSettings = {}): GenerationRun {
    return this.run(prompt, String.fromCodePoint(...prompt.slice(-20)).toUpperCase(), options);
  }

  /** Generates the characters of `reply`. */
  run(prompt: readonly number[], reply: string, options: GenerateSettings): GenerationRun {
    this.calls.push(options);
    if (prompt.length >= this.context) {
      throw new MllmError(
        "invalid_argument",
        `the prompt of ${prompt.length} tokens does not fit into ${this.context}`,
      );
    }
    let cached = 0;
    while (cached < prompt.length - 1 && this.#cached[cached] === prompt[cached]) cached++;
    const stats: ReplyStats = {
      promptTokens: prompt.length,
      cachedTokens: cached,
      promptMs: 10,
      generatedTokens: 0,
      generateMs: 0,
      stop: "length",
      contextFull: false,
    };
    const tokens: number[] = [];
    const tokenMs = this.tokenMs;
    const { context } = this;
    const remember = () => this.#cached = [...prompt, ...tokens];
    const run = {
      tokens,
      text: "",
      stats,
      async *[Symbol.asyncIterator]() {
        const ids = [...idsOf(reply), EOS];
        for (const id of ids) {
          if (tokens.length >= (options.maxTokens ?? Infinity)) break;
          if (prompt.length + tokens.length >= context) {
            stats.contextFull = true;
            break;
          }
          if (tokenMs > 0) await new Promise((resolve) => setTimeout(resolve, tokenMs));
          if (options.signal?.aborted) {
            stats.stop = "aborted";
            break;
          }
          tokens.push(id);
          stats.generatedTokens++;
          stats.generateMs += 5;
          if (id === EOS) {
            stats.stop = "eos";
            break;
          }
          run.text += String.fromCodePoint(id);
          yield { id, text: String.fromCodePoint(id) };
        }
        remember();
      },
    };
    return run;
  }

  evaluate(ids: readonly number[], options: { hiddenStates?: boolean } = {}) {
    const logits = new Float32Array(ids.length * 5).map((_, i) => i);
    const hiddenStates = options.hiddenStates ? [0, 1].map(() => new Float32Array(ids.length * 3)) : [];
    return Promise.resolve({ logits, hiddenStates });
  }
  score(ids: readonly number[]): Promise<Float32Array> {
    return Promise.resolve(Float32Array.from(ids.slice(1), (id) => id % 10));
  }
  forward(): Promise<Float32Array> {
    return Promise.resolve(new Float32Array(5));
  }
  clearCache(): void {
    this.#cached = [];
  }
  chat(options: { system?: string; messages?: readonly ChatTurn[] } = {}): FakeConversation {
    return new FakeConversation(this, options);
  }
  [Symbol.dispose](): void {
    this.isDisposed = true;
  }
}

export class FakeConversation implements Conversation {
  messages: ChatTurn[];
  system: string | undefined;
  lastStats: ReplyStats | undefined;
  #model: FakeModel;

  constructor(model: FakeModel, { system, messages }: { system?: string; messages?: readonly ChatTurn[] }) {
    this.#model = model;
    this.system = system;
    this.messages = [...(messages ?? [])];
  }

  async *send(text: string, options: GenerateSettings = {}): AsyncGenerator<string> {
    this.messages.push({ role: "user", content: text });
    let run: GenerationRun | undefined;
    try {
      if (text === "fail") throw new MllmError("backend", "the fake backend failed", { next: "Try again" });
      if (text === "crash") throw new TypeError("a bug");
      const prompt = idsOf([this.system ?? "", ...this.messages.map((m) => m.content)].join("\n"));
      run = this.#model.run(prompt, fakeReply(this.messages, this.system), options);
      for await (const piece of run) yield piece.text;
    } finally {
      this.lastStats = run?.stats;
      if (run !== undefined && run.tokens.length > 0) this.messages.push({ role: "assistant", content: run.text });
      else this.messages.pop();
    }
  }
  clear(): void {
    this.messages = [];
    this.lastStats = undefined;
  }
}

/** An engine that knows the models `fake` and `broken`. */
export class FakeEngine implements Engine {
  readonly defaultBackend = "x86";
  readonly loads: { path: string; options: RunOptions }[] = [];
  readonly summaries: string[] = [];
  readonly written: { path: string; tensors: { name: string; shape: number[]; data: Float32Array }[] }[] = [];
  readonly tunings: { path?: string; force: boolean; threads?: number }[] = [];
  readonly captured = new Map<string, CapturedProgram>();
  model: FakeModel;

  constructor(options: FakeOptions = {}) {
    this.model = new FakeModel(options);
  }

  load(path: string, options: RunOptions): Promise<LoadedModel> {
    this.loads.push({ path, options });
    this.#check(path);
    for (let i = 1; i <= 4; i++) options.onProgress?.("loading", i, 4);
    return Promise.resolve(this.model);
  }
  summarize(path: string): Promise<ModelSummary> {
    this.summaries.push(path);
    this.#check(path);
    return Promise.resolve({
      path,
      format: "huggingface",
      type: "qwen3 2L Q8_0",
      architecture: "qwen3",
      parameters: 1_500_000,
      fileBytes: 3 << 20,
      config: { hidden_size: 64, num_hidden_layers: 2 },
      tensors: [
        { name: "a", dtype: "f32", shape: [2, 3], bytes: 24 },
        { name: "b", dtype: "q8_0", shape: [32, 32], bytes: 1088 },
      ],
      memory: this.model.memory,
      keyDtype: "q8_0",
      valueDtype: "q4_0",
      context: 8192,
      contextLimit: 32768,
      hasChatTemplate: true,
      ignored: ["initializer_range"],
    });
  }
  tokenizer(path: string) {
    this.#check(path);
    return Promise.resolve(this.model.tokenizer);
  }
  backends({ backend = "x86:avx2" }: RunOptions): Promise<BackendReport[]> {
    const none = { levels: [], missing: {}, features: [], cores: 0, memoryBytes: 0, choices: [], level: "" };
    return Promise.resolve([
      {
        name: "x86",
        description: "x86-64 CPUs",
        available: true,
        cpu: "Fake CPU",
        microarchitecture: "abacus",
        level: backend.split(":")[1],
        levels: ["portable", "avx2"],
        missing: { amx: "this CPU lacks AMX" },
        features: ["avx2", "fma"],
        cores: 2,
        memoryBytes: 8 * 2 ** 30,
        choices: ["linear q8_0 decode: variant 0 on all threads: because"],
        tuned: "3 rows",
      },
      {
        ...none,
        name: "qnn",
        description: "Qualcomm NPUs",
        available: false,
        reason: "no library here",
      },
    ]);
  }
  async tune(path: string | undefined, options: Parameters<Engine["tune"]>[1]): Promise<TuneReport> {
    if (path !== undefined) this.#check(path);
    this.tunings.push({ path, force: options.force, threads: options.threads });
    for (let i = 1; i <= 4; i++) options.onTune("fake: decode", i, 4);
    const { threads = 1, signal } = options;
    const interrupted = threads === 98;
    if (interrupted) await new Promise((resolve) => signal?.addEventListener("abort", resolve));
    const none = { file: "tuned.json", measured: 0, known: 0, disturbed: 4, interrupted, rows: [] };
    if (threads > 99) return none;
    const known = options.force ? 0 : 4;
    const row = "linear decode (q4_0 [64, 64] by q8a): [tuned] GEMV, runs of 8 panels on all threads: because";
    return { ...none, measured: 6, known, disturbed: threads === 99 ? 2 : 0, rows: [row] };
  }
  describeRun() {
    return {
      backend: "x86",
      level: "avx2",
      threads: 2,
      cpu: "Fake CPU",
      chunk: 512,
      keyDtype: "f32",
      valueDtype: "f32",
    };
  }
  watchActivations(): () => number {
    return () => 3 << 20;
  }
  programs(): ReadonlyMap<string, CapturedProgram> {
    return this.captured;
  }
  writeTensors(path: string, tensors: { name: string; shape: number[]; data: Float32Array }[]): Promise<void> {
    this.written.push({ path, tensors });
    return Promise.resolve();
  }
  #check(path: string): void {
    if (path === "broken") throw new MllmError("invalid_file", "the header is cut off", { file: path, offset: 8 });
    if (path === "huge") {
      throw new MllmError("out_of_memory", "this model needs 9000.0 MiB and 8000.0 MiB are free");
    }
    if (path !== "fake") throw new MllmError("not_found", "there is no model", { file: path });
  }
}
