import {
  type Backend,
  capture,
  crossEntropy,
  EventLoopTurns,
  KvCache,
  type KvDType,
  MllmError,
  type Program,
  Tensor,
  tidy,
} from "@mllm/core";
import type { CausalLM } from "./causal_lm.ts";
import { ChatSession, type ChatSessionOptions } from "./chat_session.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { generate, type GenerateOptions, type Generation } from "./generation/generate.ts";
import { checkIsList, type RunLimits, runsOf } from "./generation/prompt_runs.ts";
import type { SamplingOptions } from "./sampling/sampler.ts";
import type { ChatTemplate } from "./template/chat_template.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";
import { checkEvaluation, type MemoryReport } from "./memory.ts";

/** Logits of every row are large (vocabSize floats each): fewer rows at a time than in `forward`. */
const LOGIT_ROWS_MAX = 128;

/**
 * Tokens are decoded on JavaScript's thread as long as it is not held up for longer: going to another thread and back takes
 * as long as a token of a very small model, and cost 7 % of the speed at 14 ms a token. The token that would be too late
 * takes that way, which leaves the event loop to everybody: of its own turns, signals are only in every dozenth.
 */
const BLOCKING_MS_MAX = 33;

/** How a loaded model runs; see `loadModel` for the defaults. */
export interface RunSettings {
  /** Tokens that the KV cache holds. */
  context: number;
  /** Most tokens of a prompt that run at once. */
  chunk: number;
  /** Runs op by op instead of replaying captured programs. */
  eager: boolean;
  /** Element type of the keys in the KV cache. */
  keyDtype: KvDType;
  /** Element type of the values in the KV cache. */
  valueDtype: KvDType;
}

/** Logits, and hidden states when asked for, of every token of a sequence. */
export interface Evaluation {
  /** f32 [tokens, vocabSize]. */
  logits: Float32Array;
  /** Per layer the residual stream after it, f32 [tokens, hiddenSize]. */
  hiddenStates: Float32Array[];
}

/** What `loadModel` puts together. */
export interface LanguageModelParts {
  /** Where weights, cache and programs live. */
  backend: Backend;
  /** Modeling code with its weights; disposed with the model. */
  network: CausalLM;
  /** The opened files. */
  checkpoint: Checkpoint;
  /** Made from the checkpoint's tokenizer files or metadata. */
  tokenizer: Tokenizer;
  /** undefined when the checkpoint has none: then there is no `chat`. */
  template: ChatTemplate | undefined;
  /** Ids that end a reply. */
  eosIds: readonly number[];
  /** What generation_config.json recommends; settings of a generation override it one by one. */
  samplingDefaults: Readonly<Partial<SamplingOptions>>;
  /** The estimate made before loading. */
  memory: MemoryReport;
  /** Context, chunk, execution and cache type, all decided. */
  settings: RunSettings;
  /** Milliseconds that loading took. */
  loadMs: number;
  /** The backend is closed with the model. */
  ownsBackend: boolean;
}

/**
 * A loaded model with its tokenizer, chat template and KV cache. Runs one sequence at a time. Once it is disposed, what
 * would run it throws `invalid_argument`; what tells about it goes on.
 */
export class LanguageModel implements Disposable {
  readonly #parts: LanguageModelParts;
  readonly #programs = new Map<string, Program>();
  readonly #cache: KvCache;
  /** Tokens whose keys and values the cache holds, in order. */
  #cached: number[] = [];
  #busy = false;
  #disposed = false;
  /** Milliseconds of the last decoded token that had the backend to itself. */
  #decodeMs = Infinity;
  readonly #turns = new EventLoopTurns(BLOCKING_MS_MAX);

  /**
   * Use `loadModel`.
   *
   * @throws {MllmError} `out_of_memory` when the KV cache does not fit
   */
  constructor(parts: LanguageModelParts) {
    this.#parts = parts;
    const { backend, network, settings } = parts;
    const { numHiddenLayers, numKeyValueHeads, headDim } = network.config;
    this.#cache = new KvCache(backend, {
      layers: numHiddenLayers,
      kvHeads: numKeyValueHeads,
      headDim,
      capacity: settings.context,
      keyDtype: settings.keyDtype,
      valueDtype: settings.valueDtype,
    });
  }

  /** The backend that holds the weights and runs the programs. */
  get backend(): Backend {
    return this.#parts.backend;
  }

  /** The modeling code with its weights, for tools that call `forward` themselves. */
  get network(): CausalLM {
    return this.#parts.network;
  }

  /** The files that the model was loaded from: config, weight table, what was ignored. */
  get checkpoint(): Checkpoint {
    return this.#parts.checkpoint;
  }

  /** Text to the model's token ids and back. */
  get tokenizer(): Tokenizer {
    return this.#parts.tokenizer;
  }

  /** The chat template, when the model has one. */
  get template(): ChatTemplate | undefined {
    return this.#parts.template;
  }

  /** What was estimated before loading. */
  get memory(): MemoryReport {
    return this.#parts.memory;
  }

  /** How the model runs: the options of `loadModel` with the defaults filled in. */
  get settings(): Readonly<RunSettings> {
    return this.#parts.settings;
  }

  /** Milliseconds that loading took. */
  get loadMs(): number {
    return this.#parts.loadMs;
  }

  /** Ids that end a reply: of config, generation config and tokenizer together. */
  get eosIds(): readonly number[] {
    return this.#parts.eosIds;
  }

  /** Sampler settings that the model's files recommend. */
  get samplingDefaults(): Readonly<Partial<SamplingOptions>> {
    return this.#parts.samplingDefaults;
  }

  /** What decides which tokens of a prompt run together. */
  get runLimits(): RunLimits {
    return { chunk: this.settings.chunk, thresholds: this.backend.runThresholds };
  }

  /** Tokens that fit into the context, prompt and reply together. */
  get context(): number {
    return this.settings.context;
  }

  /** Tokens that the model is made for: no context can be larger. */
  get contextLimit(): number {
    return this.network.config.maxPositionEmbeddings;
  }

  /** How many tokens at the start of `ids` are in the cache already. */
  cachedPrefix(ids: readonly number[]): number {
    const end = Math.min(ids.length, this.#cached.length);
    let n = 0;
    while (n < end && ids[n] === this.#cached[n]) n++;
    return n;
  }

  /**
   * Forgets the cached tokens, so that the next prompt runs from its first token.
   *
   * @throws {MllmError} `invalid_argument` while a sequence runs
   */
  clearCache(): void {
    this.#checkIdle();
    this.#cached = [];
  }

  /**
   * Runs `ids` at the positions from `position` on, which must not lie behind the tokens run so far. What the cache
   * held from `position` on is forgotten.
   *
   * @param onRun told after each run how many of `ids` are done; where it answers false the others are not run
   * @returns logits of the last one that was run, f32 [vocabSize], in an array that a later call may fill again
   * (copy it to keep it, or to transfer it to a worker)
   * @throws {MllmError} `invalid_argument` for no ids, an id outside the vocabulary, a position or length out of the
   * context, or while another sequence runs
   */
  async forward(
    ids: readonly number[],
    position: number,
    onRun: (done: number) => boolean = () => true,
  ): Promise<Float32Array> {
    this.#checkIds(ids, position);
    const unlock = this.#lock();
    try {
      let logits = new Float32Array() as Float32Array;
      for (const [start, end] of runsOf(ids.length, this.runLimits)) {
        const part = ids.slice(start, end);
        this.#cached.length = position + start;
        logits = this.settings.eager
          ? this.#forwardEager(part, position + start)
          : await this.#forwardCaptured(part, position + start);
        this.#cached.push(...part);
        if (this.settings.eager) await this.#turns.give();
        if (!onRun(end)) break;
      }
      return logits;
    } finally {
      unlock();
    }
  }

  /** Bytes of the activation arenas that are planned so far. */
  get arenaBytes(): number {
    return [...this.#programs.values()].reduce((sum, program) => sum + program.arenaBytes, 0);
  }

  /** The captured programs by name, for `doctor`, `bench` and tests. */
  get programs(): ReadonlyMap<string, Program> {
    return this.#programs;
  }

  /**
   * Runs a whole sequence from position 0 and keeps the logits of every token.
   *
   * @throws {MllmError} `invalid_argument` when an id is not in the vocabulary or the sequence exceeds the context,
   * `out_of_memory` when the result takes more than 4 GiB
   */
  async evaluate(ids: readonly number[], options: { hiddenStates?: boolean } = {}): Promise<Evaluation> {
    this.#checkIds(ids, 0);
    const { vocabSize, hiddenSize, numHiddenLayers } = this.network.config;
    const layers = options.hiddenStates ? numHiddenLayers : 0;
    checkEvaluation(this.network.config, ids.length, layers);
    const unlock = this.#lock();
    this.#cached = [];
    try {
      const result: Evaluation = {
        logits: new Float32Array(ids.length * vocabSize),
        hiddenStates: Array.from({ length: layers }, () => new Float32Array(ids.length * hiddenSize)),
      };
      const limits = this.#logitLimits();
      for (const [start, end] of runsOf(ids.length, limits)) {
        const part = ids.slice(start, end);
        const outputs = this.settings.eager
          ? this.#evaluateEager(part, start, layers)
          : await this.#evaluateCaptured(part, start, layers, limits.chunk);
        result.logits.set(outputs.logits, start * vocabSize);
        outputs.hiddenStates.forEach((h, i) => result.hiddenStates[i].set(h, start * hiddenSize));
        if (this.settings.eager) await this.#turns.give();
      }
      this.#cached = [...ids];
      return result;
    } finally {
      unlock();
    }
  }

  /**
   * Negative log-likelihood, in nats, of each token of a sequence but the first, given those before it.
   *
   * @returns f32 [ids.length - 1]
   * @throws {MllmError} `invalid_argument` for fewer than two ids, unknown ids, or more than the context holds
   */
  async score(ids: readonly number[]): Promise<Float32Array> {
    this.#checkIds(ids, 0);
    if (ids.length < 2) throw new MllmError("invalid_argument", "a score needs at least two tokens");
    const unlock = this.#lock();
    this.#cached = [];
    try {
      const result = new Float32Array(ids.length - 1);
      const limits = this.#logitLimits();
      for (const [start, end] of runsOf(result.length, limits)) {
        const targets = Int32Array.from(ids.slice(start + 1, end + 1));
        const part = Int32Array.from(ids.slice(start, end));
        const nll = this.settings.eager
          ? this.#scoreEager(part, targets, start)
          : await this.#scoreCaptured(part, targets, start, limits.chunk);
        result.set(nll, start);
        if (this.settings.eager) await this.#turns.give();
      }
      return result;
    } finally {
      unlock();
    }
  }

  /**
   * Generates a continuation of `prompt`; what the cache holds of it already is not run again. Tokens run while the
   * result is iterated.
   *
   * @throws {MllmError} `invalid_argument` for an empty prompt or settings out of range; when iterated, for a prompt
   * longer than the context or an id outside the vocabulary
   * @example
   * ```ts
   * import { loadModel } from "@mllm/models";
   * import { x86 } from "@mllm/backend-x86";
   *
   * using model = await loadModel("models/Qwen3-0.6B", { backend: x86 });
   * const prompt = model.tokenizer.encode("The capital of France is");
   * for await (const { text } of model.generate(prompt, { maxTokens: 20 })) console.log(text);
   * ```
   */
  generate(prompt: readonly number[], options: GenerateOptions = {}): Generation {
    this.#checkLive();
    return generate(this, prompt, options);
  }

  /**
   * A conversation on this model.
   *
   * @throws {MllmError} `unsupported` when the model has no chat template
   */
  chat(options: ChatSessionOptions = {}): ChatSession {
    this.#checkLive();
    return new ChatSession(this, options);
  }

  /**
   * Releases programs, cache and weights; closes the backend when `loadModel` opened it. Again is harmless.
   *
   * @throws {MllmError} `invalid_argument` while a sequence runs: nothing is released then
   */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#checkIdle();
    this.#disposed = true;
    for (const program of this.#programs.values()) program[Symbol.dispose]();
    this.#programs.clear();
    this.#cache[Symbol.dispose]();
    this.network[Symbol.dispose]();
    if (this.#parts.ownsBackend) this.backend[Symbol.dispose]();
  }

  #checkLive(): void {
    if (!this.#disposed) return;
    throw new MllmError("invalid_argument", "the model was disposed", {
      file: this.checkpoint.path,
      next: "Look where its `using` block ends, or load it again",
    });
  }

  #checkIdle(): void {
    this.#checkLive();
    if (!this.#busy) return;
    throw new MllmError("invalid_argument", "the model is busy with another call", {
      next: "Wait for it to end, or load the model a second time",
    });
  }

  #lock(): () => void {
    this.#checkIdle();
    this.#busy = true;
    return () => this.#busy = false;
  }

  /** The limits of runs with logits of every row. */
  #logitLimits(): RunLimits {
    return { ...this.runLimits, chunk: Math.min(this.settings.chunk, LOGIT_ROWS_MAX) };
  }

  #checkIds(ids: readonly number[], position: number): void {
    this.#checkLive();
    const { vocabSize } = this.network.config;
    checkIsList(ids);
    if (ids.length === 0) throw new MllmError("invalid_argument", "there are no tokens to run");
    const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (bad !== undefined) {
      throw new MllmError("invalid_argument", `token id ${bad} is not in the vocabulary (0 to ${vocabSize - 1})`);
    }
    if (!Number.isInteger(position) || position < 0) {
      throw new MllmError("invalid_argument", `the position must be a whole number of at least 0, not ${position}`);
    }
    if (position > this.#cached.length) {
      throw new MllmError("invalid_argument", `position ${position} lies behind the ${this.#cached.length} tokens run`);
    }
    if (position + ids.length > this.context) {
      throw new MllmError(
        "invalid_argument",
        `${position + ids.length} tokens do not fit into the context of ${this.context}`,
        {
          next: this.context < this.contextLimit
            ? `Shorten the prompt, or load the model with a larger \`context\`, up to ${this.contextLimit}`
            : "Shorten the prompt: the model holds no more",
        },
      );
    }
  }

  #forwardEager(ids: readonly number[], position: number): Float32Array {
    using input = Tensor.from(this.backend, Int32Array.from(ids), [ids.length]);
    using logits = this.network.forward({ ids: input, position, last: ids.length - 1, cache: this.#cache });
    return logits.toFloat32Array();
  }

  async #forwardCaptured(ids: readonly number[], position: number): Promise<Float32Array> {
    const isDecode = ids.length === 1;
    const program = this.#program(isDecode ? "decode" : "prefill");
    program.inputs.ids.write(Int32Array.from(ids));
    const waits = this.backend.isRunning; // for another model's run: not on this thread, and not a token's own time
    const start = performance.now();
    const blocks = isDecode && !waits && start + this.#decodeMs - this.#turns.lastMs < BLOCKING_MS_MAX;
    if (blocks) program.run({ tokens: 1, position });
    else await program.runAsync({ tokens: ids.length, position });
    const end = performance.now();
    if (isDecode && !waits) this.#decodeMs = end - start;
    if (!blocks) this.#turns.lastMs = end;
    return program.output("logits", 1);
  }

  #evaluateEager(ids: readonly number[], position: number, layers: number): Evaluation {
    return tidy(() => {
      const input = Tensor.from(this.backend, Int32Array.from(ids), [ids.length]);
      const hidden: Tensor[] = [];
      const onHidden = layers > 0 ? (_: number, h: Tensor) => void hidden.push(h) : undefined;
      const logits = this.network.forward({ ids: input, position, cache: this.#cache, onHidden });
      return { logits: logits.toFloat32Array(), hiddenStates: hidden.map((h) => h.toFloat32Array()) };
    });
  }

  async #evaluateCaptured(
    ids: readonly number[],
    position: number,
    layers: number,
    chunk: number,
  ): Promise<Evaluation> {
    const program = this.#evaluationProgram(layers, chunk);
    program.inputs.ids.write(Int32Array.from(ids));
    await program.runAsync({ tokens: ids.length, position });
    return {
      logits: program.output("logits", ids.length),
      hiddenStates: Array.from({ length: layers }, (_, i) => program.output(`hidden.${i}`, ids.length)),
    };
  }

  #program(phase: "prefill" | "decode"): Program {
    return this.#remember(phase, () => {
      const tokensMax = phase === "decode" ? 1 : Math.min(this.settings.chunk, this.context);
      return capture(
        this.backend,
        { tokensMax, inputs: { ids: { dtype: "i32", shape: ["tokens"] } } },
        ({ ids }, { position, last }) => ({
          logits: this.network.forward({ ids, position, last, cache: this.#cache }),
        }),
      );
    });
  }

  #evaluationProgram(layers: number, tokensMax: number): Program {
    return this.#remember(`evaluate ${layers}`, () =>
      capture(
        this.backend,
        { tokensMax, inputs: { ids: { dtype: "i32", shape: ["tokens"] } } },
        ({ ids }, { position }) => {
          const outputs: Record<string, Tensor> = {};
          const onHidden = (layer: number, h: Tensor) => void (outputs[`hidden.${layer}`] = h);
          const input = { ids, position, cache: this.#cache, onHidden: layers > 0 ? onHidden : undefined };
          outputs.logits = this.network.forward(input);
          return outputs;
        },
      ));
  }

  #scoreEager(ids: Int32Array, targets: Int32Array, position: number): Float32Array {
    return tidy(() => {
      const input = Tensor.from(this.backend, ids, [ids.length]);
      const logits = this.network.forward({ ids: input, position, cache: this.#cache });
      return crossEntropy(logits, Tensor.from(this.backend, targets, [targets.length])).toFloat32Array();
    });
  }

  async #scoreCaptured(ids: Int32Array, targets: Int32Array, position: number, chunk: number): Promise<Float32Array> {
    const program = this.#scoreProgram(chunk);
    program.inputs.ids.write(ids);
    program.inputs.targets.write(targets);
    await program.runAsync({ tokens: ids.length, position });
    return program.output("nll", ids.length);
  }

  #scoreProgram(tokensMax: number): Program {
    return this.#remember("score", () =>
      capture(
        this.backend,
        {
          tokensMax,
          inputs: { ids: { dtype: "i32", shape: ["tokens"] }, targets: { dtype: "i32", shape: ["tokens"] } },
        },
        ({ ids, targets }, { position }) => ({
          nll: crossEntropy(this.network.forward({ ids, position, cache: this.#cache }), targets),
        }),
      ));
  }

  #remember(name: string, make: () => Program): Program {
    let program = this.#programs.get(name);
    if (!program) this.#programs.set(name, program = make());
    return program;
  }
}
