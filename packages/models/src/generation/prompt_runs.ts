/**
 * Which tokens of a prompt run together. With int8 activations a run rounds otherwise from some numbers of tokens on
 * (`Backend.runThresholds`). So that a prompt gives the same bits whatever part of it is cached by runs that were long
 * enough, and however long it is, none of its tokens is left to a shorter run if that can be helped.
 * @module
 */
import { MllmError } from "@mllm/core";

/** What decides about the runs of a model. */
export interface RunLimits {
  /** Most tokens of a run. */
  readonly chunk: number;
  /** Numbers of tokens from which on a run rounds otherwise than a shorter one, rising. */
  readonly thresholds: readonly number[];
}

/** Refuses text and whatever else is no list of ids. @throws {MllmError} `invalid_argument` */
export function checkIsList(ids: readonly number[]): void {
  if (Array.isArray(ids) || ids as unknown instanceof Int32Array) return;
  throw new MllmError("invalid_argument", `token ids must come as an array of numbers, not as ${typeof ids}`, {
    next: "`model.tokenizer.encode(text)` makes them",
  });
}

/** Whether `tokens` can be cut into runs of at least `least` tokens. Those of a chunk of `2 * least - 1` always can. */
const canBeCut = (tokens: number, chunk: number, least: number): boolean => tokens >= least * Math.ceil(tokens / chunk);

/** The highest threshold that all runs of `tokens` can reach. */
function leastOf(tokens: number, { chunk, thresholds }: RunLimits): number {
  return thresholds.findLast((least) => least <= chunk && canBeCut(tokens, chunk, least)) ?? 1;
}

/**
 * The first token to run of a prompt of `total` tokens, of which the cache holds `cached`: the last one always runs. A
 * prompt too short for the highest threshold runs whole, for what is cached may come from a longer run.
 */
export function firstToRun(cached: number, total: number, limits: RunLimits): number {
  if (limits.thresholds.some((least) => least > total && least <= limits.chunk)) return 0;
  const least = leastOf(total, limits);
  let first = Math.min(cached, total - 1);
  while (!canBeCut(total - first, limits.chunk, least)) first--;
  return first;
}

/** The runs of `total` tokens, each from its first token to the one behind its last. */
export function* runsOf(total: number, limits: RunLimits): Generator<[start: number, end: number]> {
  const least = leastOf(total, limits);
  for (let start = 0; start < total;) {
    const left = total - start;
    // As many as go, but leaving enough for the runs to come.
    const end = start + Math.min(left, limits.chunk, left - least * (Math.ceil(left / limits.chunk) - 1));
    yield [start, end];
    start = end;
  }
}
