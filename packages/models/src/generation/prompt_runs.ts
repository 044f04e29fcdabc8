/**
 * Which tokens of a prompt run together. With int8 activations a run of `attentionI8TokensMin` tokens or more attends in
 * int8, a shorter one in floats. So that a prompt gives the same bits whatever part of it is cached by runs that
 * were long enough, and however long it is, none of its tokens is left to a shorter run if that can be helped.
 * @module
 */
import { type Activations, attentionI8TokensMin as least, MllmError } from "@mllm/core";

/** What decides about the runs of a model. */
export interface RunLimits {
  /** Most tokens of a run. */
  readonly chunk: number;
  /** "i8": runs that are long enough attend in int8. */
  readonly activations: Activations;
}

/** Refuses text and whatever else is no list of ids. @throws {MllmError} `invalid_argument` */
export function checkIsList(ids: readonly number[]): void {
  if (Array.isArray(ids) || ids as unknown instanceof Int32Array) return;
  throw new MllmError("invalid_argument", `token ids must come as an array of numbers, not as ${typeof ids}`, {
    next: "`model.tokenizer.encode(text)` makes them",
  });
}

const matters = ({ chunk, activations }: RunLimits): boolean => activations === "i8" && chunk >= least;

/** Whether `tokens` can be cut into runs that are all long enough. Those of a chunk of `2 * least - 1` always can. */
const canBeCut = (tokens: number, { chunk }: RunLimits): boolean => tokens >= least * Math.ceil(tokens / chunk);

/** The first token to run of a prompt of `total` tokens, of which the cache holds `cached`: the last one always runs. */
export function firstToRun(cached: number, total: number, limits: RunLimits): number {
  let first = Math.min(cached, total - 1);
  if (matters(limits) && canBeCut(total, limits)) { while (!canBeCut(total - first, limits)) first--; }
  return first;
}

/** The runs of `total` tokens, each from its first token to the one behind its last. */
export function* runsOf(total: number, limits: RunLimits): Generator<[start: number, end: number]> {
  for (let start = 0; start < total;) {
    const end = start + runLength(total - start, limits);
    yield [start, end];
    start = end;
  }
}

/** How many tokens to run next when `left` are left: as many as go, but leaving enough for the runs to come. */
function runLength(left: number, limits: RunLimits): number {
  const { chunk } = limits;
  const most = Math.min(left, chunk);
  if (!matters(limits) || !canBeCut(left, limits)) return most;
  return Math.min(most, left - least * (Math.ceil(left / chunk) - 1));
}
