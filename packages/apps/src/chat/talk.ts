/** A conversation with its settings and totals: what the terminal chat, the pipe and one-shot prompts share. */
import type { Conversation, LoadedModel, ReplyStats } from "../engine.ts";
import type { Settings } from "../settings.ts";

/** Sums over all replies of at least one token. */
export interface Totals {
  replies: number;
  promptTokens: number;
  cachedTokens: number;
  promptMs: number;
  generatedTokens: number;
  generateMs: number;
}

export interface ReplyOptions {
  signal?: AbortSignal;
  onText: (text: string) => void;
  onPrompt?: (done: number, total: number) => void;
}

export class Talk {
  readonly totals: Totals = {
    replies: 0,
    promptTokens: 0,
    cachedTokens: 0,
    promptMs: 0,
    generatedTokens: 0,
    generateMs: 0,
  };

  constructor(
    readonly model: LoadedModel,
    readonly conversation: Conversation,
    readonly settings: Settings,
    /** For people and for saved files. */
    readonly modelName: string,
  ) {}

  /** Says `text`, gives out the reply as it comes, and returns its counts. What the engine throws goes through. */
  async reply(text: string, { signal, onText, onPrompt }: ReplyOptions): Promise<Readonly<ReplyStats> | undefined> {
    const settings = this.settings.toGenerate();
    for await (const piece of this.conversation.send(text, { ...settings, signal, onPrompt })) {
      onText(piece);
    }
    const stats = this.conversation.lastStats;
    if (stats !== undefined && stats.generatedTokens > 0) this.#add(stats);
    return stats;
  }

  #add(stats: Readonly<ReplyStats>): void {
    const { totals } = this;
    totals.replies++;
    totals.promptTokens += stats.promptTokens;
    totals.cachedTokens += stats.cachedTokens;
    totals.promptMs += stats.promptMs;
    totals.generatedTokens += stats.generatedTokens;
    totals.generateMs += stats.generateMs;
  }
}
