/**
 * Numbers that a captured program learns only when it runs: registers, and the dimension they give.
 * @module
 */

import { Register as registers } from "./native/abi.ts";

/**
 * Name of a run-time value of a program: `tokens` in this run, `position` of the first of them in the sequence, `last`
 * = tokens - 1, `context` = position + tokens. (`Register` in native/abi.zig.)
 */
export type RegisterName = "tokens" | "position" | "last" | "context";

/** A value known only at run time; see {@linkcode RegisterName} for which there are. */
export interface Register {
  /** Name of the value. */
  readonly register: RegisterName;
}

/** An integer parameter of an op: a literal, or a register inside `capture`. */
export type Scalar = number | Register;

/** The symbolic dimension: the number of tokens of a run, at most `max`. */
export interface TokenDim {
  /** Marks the dim as symbolic; there is one symbol. */
  readonly symbol: "tokens";
  /** The most tokens of a run: `tokensMax` of the capture. */
  readonly max: number;
}

/** One dimension of a shape. A symbolic one is only ever the outermost dim of a contiguous tensor. */
export type Dim = number | TokenDim;

/** Ids of the registers in the native ABI; 0 means a literal. */
export const registerIds: Readonly<Record<RegisterName, number>> = registers;

/** The largest length a dimension can have: a number itself, or the `max` of the symbol. */
export function maxDim(dim: Dim): number {
  return typeof dim === "number" ? dim : dim.max;
}

/** A shape with symbolic dims at their maximum. */
export function maxShape(shape: readonly Dim[]): number[] {
  return shape.map(maxDim);
}

/** Whether two dims are the same number, or the same symbol. */
export function sameDim(a: Dim, b: Dim): boolean {
  return a === b || (typeof a === "object" && typeof b === "object" && a.max === b.max);
}

/** Whether two shapes are equal, symbols included. */
export function sameShape(a: readonly Dim[], b: readonly Dim[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (!sameDim(a[i], b[i])) return false;
  return true;
}

/** A shape for messages, for example `[tokens<=512, 64]`. */
export function formatShape(shape: readonly Dim[]): string {
  return `[${shape.map((d) => typeof d === "number" ? d : `tokens<=${d.max}`).join(", ")}]`;
}
