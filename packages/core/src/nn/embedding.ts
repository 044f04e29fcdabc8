/**
 * Rows of a table by id.
 * @module
 */
import { embedding } from "../ops/rows.ts";
import type { Tensor } from "../tensor.ts";
import { Module } from "./module.ts";

/** A token embedding. A packed table also serves a `Linear` as the tied head. */
export class Embedding extends Module {
  /** weight: [vocab, hidden], strided or packed; owned from now on. */
  constructor(
    /** [vocab, hidden], strided or packed. */
    readonly weight: Tensor,
  ) {
    super();
  }

  /** ids: i32 [tokens] → f32 [tokens, hidden]. */
  forward(ids: Tensor): Tensor {
    return embedding(ids, this.weight);
  }
}
