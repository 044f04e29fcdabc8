import { PairTable } from "./pair_table.ts";
import type { MergeTable } from "./merge.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Pairs that were looked up are remembered up to this number, then forgotten at once: a bound, not a tuning knob. */
const rememberedMax = 1 << 20;
/** Stands for "these two do not merge" among the remembered pairs. */
const never = 0x7fffffff;

/**
 * Merges of a sentencepiece BPE vocabulary, which has no list of them: two symbols merge when their joined text is a
 * token, the highest score first. So the rank is the order of the scores (equal scores share one, the leftmost wins),
 * and pairs are found by text once, then by id.
 */
export class SpmMerges implements MergeTable {
  readonly #vocabulary: Vocabulary;
  readonly #ranks: Int32Array;
  readonly #lengthMax: number;
  #pairs = new PairTable(1 << 14);

  /**
   * @param vocabulary the tokens that text may merge into: the normal ones
   * @param scores score of each id
   */
  constructor(vocabulary: Vocabulary, scores: ArrayLike<number>) {
    this.#vocabulary = vocabulary;
    const order = vocabulary.ids().sort((a, b) => scores[b] - scores[a]);
    this.#ranks = new Int32Array(vocabulary.length);
    let rank = 0;
    let lengthMax = 0;
    for (let i = 0; i < order.length; i++) {
      if (i > 0 && scores[order[i]] !== scores[order[i - 1]]) rank++;
      this.#ranks[order[i]] = rank;
      lengthMax = Math.max(lengthMax, vocabulary.byteLength(order[i]));
    }
    this.#lengthMax = lengthMax;
  }

  find(left: number, right: number): number {
    if (left < 0 || right < 0) return -1;
    let slot = this.#pairs.find(left, right);
    if (slot < 0) slot = this.#remember(left, right);
    return this.#pairs.rank(slot) === never ? -1 : slot;
  }

  rank(slot: number): number {
    return this.#pairs.rank(slot);
  }

  merged(slot: number): number {
    return this.#pairs.merged(slot);
  }

  #remember(left: number, right: number): number {
    if (this.#pairs.size >= rememberedMax) this.#pairs = new PairTable(1 << 14);
    const length = this.#vocabulary.byteLength(left) + this.#vocabulary.byteLength(right);
    const merged = length <= this.#lengthMax ? this.#vocabulary.findJoined(left, right) : -1;
    return merged < 0
      ? this.#pairs.set(left, right, never, 0)
      : this.#pairs.set(left, right, this.#ranks[merged], merged);
  }
}
