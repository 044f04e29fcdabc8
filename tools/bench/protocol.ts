/** What `bench:peers` asks of a process that runs one engine once, and what it gets back. */

/** Given as JSON in the last argument. */
export interface PeerRequest {
  /** A GGUF file; for MNN the folder of its converted model. */
  model: string;
  /** Lengths of prompts to run, each from an empty context. */
  prompts: number[];
  /** Numbers of tokens to generate one by one, each after a single token. */
  generates: number[];
  threads: number;
  /** ISA level of this engine; the best of the machine when absent. */
  level?: string;
}

/** Printed as JSON in the last line. */
export interface PeerReply {
  version: string;
  /** What was found to run: the ISA level, or the engine's own words. */
  detail: string;
  /** When the first token after a prompt of `shortPromptTokens` was known. */
  firstTokenEpochMs: number;
  /** Tokens per second by test name, after a warm-up. */
  speeds: Record<string, number>;
  /** The most resident memory that the process ever had (VmHWM). */
  peakBytes: number;
}

/** Tokens of the prompt whose answer's first token ends the loading. */
export const shortPromptTokens = 8;

/** Ids without meaning, the same for every engine; below 2^15, which every vocabulary here has. */
export function promptIds(count: number): number[] {
  return Array.from({ length: count }, (_, i) => 1000 + (i * 7919) % 30_000);
}

/** Tokens that fit every test. */
export function contextOf({ prompts, generates }: Pick<PeerRequest, "prompts" | "generates">): number {
  return Math.max(shortPromptTokens, ...prompts, ...generates) + 64;
}

/** VmHWM where the system tells, else the resident memory of now. */
export function peakBytes(): number {
  try {
    const [, kib] = /^VmHWM:\s*(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status"))!;
    return Number(kib) * 1024;
  } catch {
    return Deno.memoryUsage().rss;
  }
}
