/**
 * Which tokens of a prompt run together. With int8 activations a run of `attentionI8TokensMin` tokens or more attends in
 * int8, a shorter one in floats. So that a prompt gives the same bits whatever part of it is cached, and however long it
 * is, none of its tokens is left to a shorter run if that can be helped.
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

/** The first token to run of a prompt of `total` tokens, of which the cache holds `cached`: the last one always runs. */
export function firstToRun(cached: number, total: number, limits: RunLimits): number {
  const rest = matters(limits) && total >= least ? least : 1;
  return Math.min(cached, total - rest);
}

/** The runs of `total` tokens, each from its first token to the one behind its last. */
export function* runsOf(total: number, limits: RunLimits): Generator<[start: number, end: number]> {
  for (let start = 0; start < total;) {
    const end = start + runLength(total - start, limits);
    yield [start, end];
    start = end;
  }
}

/** How many tokens to run next when `left` are left: as many as go, but leaving none or enough for a run of their own. */
function runLength(left: number, limits: RunLimits): number {
  const { chunk } = limits;
  if (left <= chunk) return left;
  const missing = least - (left - chunk);
  return matters(limits) && missing > 0 && chunk - missing >= least ? chunk - missing : chunk;
}
