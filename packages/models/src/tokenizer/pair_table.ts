import { hashOn, hashSeed } from "./hash.ts";

/** Numbers of an entry: left, right, rank, merged. */
const width = 4;

/**
 * A hash from a pair of symbol ids to the rank of their merge and the id of the merged symbol. Open addressing over
 * typed arrays: a vocabulary has up to 300,000 merges, and a JavaScript Map of that size takes several times as long
 * to fill and allocates a boxed key for each. A place in the table is one number, that of an entry.
 */
export class PairTable {
  #places: Int32Array;
  #entries: Int32Array;
  #size = 0;

  /** @param expected how many pairs will probably be set; more is fine, the table grows. */
  constructor(expected = 16) {
    const room = Math.max(16, expected);
    this.#places = new Int32Array(1 << (32 - Math.clz32(room * 2 - 1))).fill(-1);
    this.#entries = new Int32Array(room * width);
  }

  /** Number of pairs. */
  get size(): number {
    return this.#size;
  }

  /** Slot of the pair, or -1 where these two symbols don't merge; ids below 0 (unknown symbols) never merge. */
  find(left: number, right: number): number {
    return left < 0 || right < 0 ? -1 : this.#places[this.#probe(left, right)];
  }

  /** Rank of a slot from `find`: lower merges first. */
  rank(slot: number): number {
    return this.#entries[slot * width + 2];
  }

  /** Id of the merged symbol of a slot from `find`. */
  merged(slot: number): number {
    return this.#entries[slot * width + 3];
  }

  /** Sets or replaces a pair and gives its slot; ids and rank are at least 0. */
  set(left: number, right: number, rank: number, merged: number): number {
    if (this.#size * 2 >= this.#places.length) this.#grow();
    const place = this.#probe(left, right);
    const slot = this.#places[place] < 0 ? this.#size++ : this.#places[place];
    if (slot * width === this.#entries.length) {
      const entries = new Int32Array(this.#entries.length * 2);
      entries.set(this.#entries);
      this.#entries = entries;
    }
    this.#places[place] = slot;
    const at = slot * width;
    this.#entries[at] = left;
    this.#entries[at + 1] = right;
    this.#entries[at + 2] = rank;
    this.#entries[at + 3] = merged;
    return slot;
  }

  /** Place that holds the pair, or the free one where it belongs. At most half of them are used, so this ends. */
  #probe(left: number, right: number): number {
    const entries = this.#entries;
    const places = this.#places;
    let place = hashOn(hashOn(hashSeed, left), right) & (places.length - 1);
    for (let slot = places[place]; slot >= 0; slot = places[place]) {
      if (entries[slot * width] === left && entries[slot * width + 1] === right) break;
      place = (place + 1) & (places.length - 1);
    }
    return place;
  }

  #grow(): void {
    this.#places = new Int32Array(this.#places.length * 2).fill(-1);
    for (let slot = 0; slot < this.#size; slot++) {
      this.#places[this.#probe(this.#entries[slot * width], this.#entries[slot * width + 1])] = slot;
    }
  }
}
