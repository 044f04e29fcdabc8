/**
 * Rows of a table by id.
 * @module
 */
import { linear } from "../ops/linear.ts";
import { embedding } from "../ops/rows.ts";
import type { Tensor } from "../tensor.ts";
import { Module } from "./module.ts";

/** A token embedding; a packed table also serves as the tied head. */
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

  /** x: f32 [rows, hidden] → logits f32 [rows, vocab], by the same weights. The table must be packed. */
  attend(x: Tensor): Tensor {
    return linear(x, this.weight);
  }
}
