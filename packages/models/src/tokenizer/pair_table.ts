/**
 * A hash from a pair of symbol ids to the rank of their merge and the id of the merged symbol. Open addressing over
 * typed arrays: a vocabulary has up to 300,000 merges, and a JavaScript Map of that size takes several times as long
 * to fill and allocates a boxed key for each.
 */
export class PairTable {
  #left: Int32Array;
  #right: Int32Array;
  #ranks: Int32Array;
  #merged: Int32Array;
  #mask: number;
  #size = 0;

  /** @param expected how many pairs will probably be set; more is fine, the table grows. */
  constructor(expected = 16) {
    const capacity = 1 << (32 - Math.clz32(Math.max(16, expected * 2) - 1));
    this.#mask = capacity - 1;
    this.#left = new Int32Array(capacity).fill(-1);
    this.#right = new Int32Array(capacity);
    this.#ranks = new Int32Array(capacity);
    this.#merged = new Int32Array(capacity);
  }

  /** Number of pairs. */
  get size(): number {
    return this.#size;
  }

  /** Slot of the pair, or -1 where these two symbols don't merge; ids below 0 (unknown symbols) never merge. */
  find(left: number, right: number): number {
    if (left < 0 || right < 0) return -1;
    const slot = this.#probe(left, right);
    return this.#left[slot] < 0 ? -1 : slot;
  }

  /** Rank of a slot from `find`: lower merges first. */
  rank(slot: number): number {
    return this.#ranks[slot];
  }

  /** Id of the merged symbol of a slot from `find`. */
  merged(slot: number): number {
    return this.#merged[slot];
  }

  /** Sets or replaces a pair; ids and rank are at least 0. */
  set(left: number, right: number, rank: number, merged: number): number {
    if ((this.#size + 1) * 2 > this.#mask) this.#grow();
    const slot = this.#probe(left, right);
    if (this.#left[slot] < 0) this.#size++;
    this.#left[slot] = left;
    this.#right[slot] = right;
    this.#ranks[slot] = rank;
    this.#merged[slot] = merged;
    return slot;
  }

  /** Slot that holds the pair, or the free one where it belongs. At most half of the slots are used, so this ends. */
  #probe(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    let slot = hash & this.#mask;
    while (this.#left[slot] >= 0 && (this.#left[slot] !== left || this.#right[slot] !== right)) {
      slot = (slot + 1) & this.#mask;
    }
    return slot;
  }

  #grow(): void {
    const [left, right, ranks, merged] = [this.#left, this.#right, this.#ranks, this.#merged];
    const capacity = left.length * 2;
    this.#mask = capacity - 1;
    this.#size = 0;
    this.#left = new Int32Array(capacity).fill(-1);
    this.#right = new Int32Array(capacity);
    this.#ranks = new Int32Array(capacity);
    this.#merged = new Int32Array(capacity);
    for (let i = 0; i < left.length; i++) {
      if (left[i] >= 0) this.set(left[i], right[i], ranks[i], merged[i]);
    }
  }
}
