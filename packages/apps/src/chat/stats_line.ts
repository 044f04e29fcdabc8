/** Counts and speeds of replies, for people. */
import type { ReplyStats } from "../engine.ts";

/** Tokens per second with one decimal, or a dash where nothing was measured. */
export function perSecond(tokens: number, ms: number): string {
  return tokens > 0 && ms > 0 ? (tokens / ms * 1000).toFixed(1) : "–";
}

/** `prompt 25 tokens (18 cached) 410.2 t/s · reply 42 tokens 68.9 t/s`. */
export function statsLine(stats: Readonly<ReplyStats>): string {
  const run = stats.promptTokens - stats.cachedTokens;
  const cached = stats.cachedTokens > 0 ? ` (${stats.cachedTokens} cached)` : "";
  return `prompt ${stats.promptTokens} tokens${cached} ${perSecond(run, stats.promptMs)} t/s · ` +
    `reply ${stats.generatedTokens} tokens ${perSecond(stats.generatedTokens, stats.generateMs)} t/s`;
}

/** What a reader should know about how the reply ended; undefined when it simply ended. */
export function endNote(stats: Readonly<ReplyStats>, context: number): string | undefined {
  if (stats.contextFull) {
    return `the reply ends here because the context of ${context} tokens is full: /clear starts again, ` +
      `--context N at the start makes it larger`;
  }
  if (stats.stop === "aborted") return "stopped";
  if (stats.stop === "length") return `the reply ends here because of max_tokens (${stats.generatedTokens})`;
  return undefined;
}
