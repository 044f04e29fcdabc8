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
  /** Resident memory of the process when the first token was known (VmRSS). */
  loadedBytes: number;
  /** The most resident memory that the process ever had (VmHWM). */
  peakBytes: number;
  /** Weights as packed and keys and values of the whole context, where an engine knows them. */
  neededBytes?: number;
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

/** Resident memory: VmRSS is that of now, VmHWM the most so far; where the system does not tell, both are that of now. */
export function residentBytes(field: "VmRSS" | "VmHWM"): number {
  try {
    const [, kib] = new RegExp(`^${field}:\\s*(\\d+) kB$`, "m").exec(Deno.readTextFileSync("/proc/self/status"))!;
    return Number(kib) * 1024;
  } catch {
    return Deno.memoryUsage().rss;
  }
}
