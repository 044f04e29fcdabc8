import { MllmError } from "@mllm/core";
import { checkNames, shown } from "../check_options.ts";
import { mergeSampling } from "../generation_config.ts";
import type { LanguageModel } from "../language_model.ts";
import { checkIsList, firstToRun } from "./prompt_runs.ts";
import { Sampler, type SamplingOptions } from "../sampling/sampler.ts";
import { StopMatcher } from "../sampling/stop_matcher.ts";
import { StreamingDecoder } from "../tokenizer/streaming_decoder.ts";

/** How to continue a prompt. */
export interface GenerateOptions {
  /** Most new tokens, 0 or more; without it, until the context is full. */
  maxTokens?: number;
  /** Sampler settings; what is not given comes from the model's generation config, see {@linkcode Sampler}. */
  sampling?: Partial<SamplingOptions>;
  /** Generation ends before the first of these strings appears in the text. */
  stopStrings?: readonly string[];
  /** Goes on past end-of-sequence tokens. */
  ignoreEos?: boolean;
  /** Ends the generation after the token or prompt chunk that is running. */
  signal?: AbortSignal;
  /** Leaves special tokens out of the text (default true); they are in `tokens` in any case. */
  skipSpecial?: boolean;
  /** Called after each prompt chunk with the prompt tokens done and their number. */
  onPrompt?: (done: number, total: number) => void;
}

const optionNames: Readonly<Record<keyof GenerateOptions, true>> = {
  maxTokens: true,
  sampling: true,
  stopStrings: true,
  ignoreEos: true,
  signal: true,
  skipSpecial: true,
  onPrompt: true,
};

/** Why a generation ended: an EOS token, `maxTokens` or a full context, a stop string, or the signal or its reader. */
export type StopReason = "eos" | "length" | "stop" | "aborted";

/** Counts and times of one generation, complete when it has ended. Times in milliseconds. */
export interface GenerationStats {
  /** Tokens of the prompt. */
  promptTokens: number;
  /** Those of them that were in the KV cache already. */
  cachedTokens: number;
  /** Time to run those that were not cached. */
  promptMs: number;
  /** New tokens, an EOS included. */
  generatedTokens: number;
  /** Time from the end of the prompt to the last new token. */
  generateMs: number;
  /** Why it ended; "length" until it has. */
  stop: StopReason;
  /** Whether the reply ended because prompt and reply together filled the context. */
  contextFull: boolean;
}

/** A new token and the text that became certain with it, which may be empty. */
export interface GeneratedPiece {
  /** The token. Text that was held back until the end comes in one more piece, with the last token's id. */
  id: number;
  /** Part of the reply, without stop strings and, unless asked for, special tokens. */
  text: string;
}

/** A running generation: iterate it once for its pieces; `tokens`, `text` and `stats` grow meanwhile. */
export interface Generation extends AsyncIterable<GeneratedPiece> {
  /** New tokens so far, an EOS included. */
  readonly tokens: readonly number[];
  /** Text so far: the `text` of all pieces, joined. */
  readonly text: string;
  /** Counts and times so far. */
  readonly stats: Readonly<GenerationStats>;
}

/** The token loop over a model's `forward`: prompt chunks, then sample, decode and stop, one token at a time. */
class TokenLoop implements Generation {
  readonly tokens: number[] = [];
  text = "";
  readonly stats: GenerationStats;
  readonly #eosIds: ReadonlySet<number>;
  readonly #sampler: Sampler;
  readonly #decoder: StreamingDecoder;
  readonly #stops: StopMatcher;
  /** Prompt and new tokens. */
  readonly #ids: number[];
  #started = false;

  constructor(
    readonly model: LanguageModel,
    readonly prompt: readonly number[],
    readonly options: GenerateOptions,
  ) {
    checkNames("generate", options, optionNames);
    const { maxTokens, stopStrings = [] } = options;
    if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 0)) {
      throw new MllmError(
        "invalid_argument",
        `maxTokens must be a whole number of at least 0, not ${shown(maxTokens)}`,
      );
    }
    if (!Array.isArray(stopStrings)) {
      throw new MllmError("invalid_argument", `stopStrings must be an array of texts, not ${shown(stopStrings)}`);
    }
    checkIsList(prompt);
    if (prompt.length === 0) {
      throw new MllmError("invalid_argument", "the prompt has no tokens", {
        next: "Give a text of at least one token",
      });
    }
    this.#eosIds = new Set(options.ignoreEos ? [] : model.eosIds);
    this.#sampler = new Sampler(mergeSampling(model.samplingDefaults, options.sampling));
    this.#decoder = new StreamingDecoder(model.tokenizer, { skipSpecial: options.skipSpecial ?? true });
    this.#stops = new StopMatcher(stopStrings);
    this.#ids = [...prompt];
    this.stats = {
      promptTokens: prompt.length,
      cachedTokens: 0,
      promptMs: 0,
      generatedTokens: 0,
      generateMs: 0,
      stop: "length",
      contextFull: false,
    };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<GeneratedPiece> {
    if (this.#started) throw new MllmError("invalid_argument", "a generation can be iterated only once");
    this.#started = true;
    this.stats.stop = "aborted"; // until it ends in another way: whoever leaves the loop leaves this
    const promptStart = performance.now();
    let logits = await this.#runPrompt();
    const start = performance.now();
    this.stats.promptMs = start - promptStart;
    if (!logits) return;

    const limit = this.options.maxTokens ?? Infinity;
    while (true) {
      if (this.tokens.length >= limit || this.#ids.length > this.model.context) {
        this.stats.contextFull = this.tokens.length < limit;
        this.stats.stop = "length";
        break;
      }
      const id = this.#sampler.sample(logits, this.#ids);
      this.tokens.push(id);
      this.#ids.push(id);
      this.stats.generatedTokens++;
      this.stats.generateMs = performance.now() - start;
      const piece = this.#accept(id);
      if (piece.text !== "" || !piece.ended) yield { id, text: piece.text };
      if (piece.ended) return;
      if (this.options.signal?.aborted) break;
      if (this.tokens.length < limit && this.#ids.length <= this.model.context) logits = await this.#runRest();
    }
    const rest = this.#finish();
    if (rest !== "") yield { id: this.tokens[this.tokens.length - 1], text: rest };
  }

  /** Runs what the cache lacks of the prompt; undefined when the signal came meanwhile. */
  async #runPrompt(): Promise<Float32Array | undefined> {
    const { model, prompt, stats, options: { signal, onPrompt } } = this;
    if (signal?.aborted) return undefined;
    const first = firstToRun(model.cachedPrefix(prompt), prompt.length, model.runLimits);
    stats.cachedTokens = first;
    let left = prompt.length - first;
    const logits = await model.forward(prompt.slice(first), first, (done) => {
      left = prompt.length - first - done;
      onPrompt?.(first + done, prompt.length);
      return !signal?.aborted;
    });
    return left === 0 ? logits : undefined;
  }

  /**
   * Runs what the cache lacks of prompt and new tokens: the last token, or more when another sequence has been run on
   * this model meanwhile.
   */
  async #runRest(): Promise<Float32Array> {
    const done = Math.min(this.model.cachedPrefix(this.#ids), this.#ids.length - 1);
    return await this.model.forward(this.#ids.slice(done), done);
  }

  /** Turns a token into text and says whether generation ends with it. */
  #accept(id: number): { text: string; ended: boolean } {
    if (this.#eosIds.has(id)) {
      this.stats.stop = "eos";
      return { text: this.#finish(), ended: true };
    }
    const { text, stopped } = this.#stops.push(this.#decoder.push(id));
    this.text += text;
    if (stopped) this.stats.stop = "stop";
    return { text, ended: stopped };
  }

  /** The text that was held back as a possible part of a character or of a stop string. */
  #finish(): string {
    const { text } = this.#stops.push(this.#decoder.flush());
    const end = this.#stops.flush();
    if (end.stopped) {
      this.stats.stop = "stop";
      this.stats.contextFull = false;
    }
    this.text += text + end.text;
    return text + end.text;
  }
}

/** Starts a generation; see {@linkcode LanguageModel.generate}. */
export function generate(model: LanguageModel, prompt: readonly number[], options: GenerateOptions): Generation {
  return new TokenLoop(model, prompt, options);
}
