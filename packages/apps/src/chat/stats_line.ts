/** Counts and speeds of replies, for people. */
import type { LoadedModel, ReplyStats } from "../engine.ts";

/** Tokens per second with one decimal, or a dash where nothing was measured. */
export function perSecond(tokens: number, ms: number): string {
  return tokens > 0 && ms > 0 ? (tokens / ms * 1000).toFixed(1) : "–";
}

/** `prompt 25 tokens (18 cached) 410.2 t/s · reply 42 tokens 68.9 t/s`. */
export function statsLine(stats: Readonly<ReplyStats>): string {
  const run = stats.promptTokens - stats.cachedTokens;
  const reply = stats.generatedTokens;
  const cached = stats.cachedTokens > 0 ? ` (${stats.cachedTokens} cached)` : "";
  return `prompt ${stats.promptTokens} tokens${cached} ${perSecond(run, stats.promptMs)} t/s · ` +
    // The first token comes with the prompt: alone it has no speed.
    `reply ${reply} ${reply === 1 ? "token" : "tokens"} ${perSecond(reply > 1 ? reply : 0, stats.generateMs)} t/s`;
}

/** The part of a model that a full context is about. */
export type ContextSize = Pick<LoadedModel, "context" | "contextLimit">;

/** That the context is full, and what makes it larger where something does. */
export function contextFull({ context, contextLimit }: ContextSize): string {
  const larger = context < contextLimit ? `; --context N makes it larger, up to ${contextLimit}` : "";
  return `the context of ${context} ${context === 1 ? "token" : "tokens"} is full${larger}`;
}

/** Whether a reply was stopped while the prompt was being read: the conversation is then as it was before. */
export function isStoppedEarly(stats: Readonly<ReplyStats>): boolean {
  return stats.stop === "aborted" && stats.generatedTokens === 0;
}

/** What becomes of the message of such a reply. */
export const STOPPED_EARLY = "stopped: your message is not kept";

/** What a reader should know about how the reply ended; undefined when it simply ended. */
export function endNote(stats: Readonly<ReplyStats>, model: ContextSize): string | undefined {
  if (stats.contextFull) return `the reply ends here because ${contextFull(model)}`;
  if (isStoppedEarly(stats)) return STOPPED_EARLY;
  if (stats.stop === "aborted") return "stopped";
  if (stats.stop === "length") return `the reply ends here because of max_tokens (${stats.generatedTokens})`;
  return undefined;
}
