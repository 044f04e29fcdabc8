/** What merging asks of a table: see PairTable, and SpmMerges that finds its pairs by their text. */
export interface MergeTable {
  find(left: number, right: number): number;
  rank(slot: number): number;
  merged(slot: number): number;
}

/** Marks a symbol that was merged into its left neighbour. */
const dead = -2;
/** Heap keys are rank * 2^31 + position: exact in a double for ranks below 2^22. */
const positions = 2 ** 31;

/**
 * Merges neighbouring symbols, lowest rank first and leftmost among equals, until none merges: byte-pair encoding, and
 * sentencepiece's too, where the rank is the order of the scores. O(n log n) by a heap, so one word of a megabyte is no
 * trap. Works in place: survivors keep the index of their first symbol, and `ids[i] === -2` where one was swallowed.
 *
 * @param ids symbol ids, -1 for an unknown one
 * @param count how many of them are used
 */
export function mergeSymbols(ids: Int32Array, count: number, table: MergeTable): void {
  if (count < 2) return;
  const next = new Int32Array(count);
  const previous = new Int32Array(count);
  const heap = new KeyHeap(count);
  const offer = (left: number, right: number) => {
    const slot = table.find(ids[left], ids[right]);
    if (slot >= 0) heap.push(table.rank(slot) * positions + left);
  };
  for (let i = 0; i < count; i++) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 < count) offer(i, i + 1);
  }
  while (heap.size > 0) {
    const key = heap.pop();
    const rank = Math.floor(key / positions);
    const left = key - rank * positions;
    const right = next[left];
    if (ids[left] === dead || right >= count) continue;
    // An entry may be stale: it counts only if what stands there now merges with that very rank.
    const slot = table.find(ids[left], ids[right]);
    if (slot < 0 || table.rank(slot) !== rank) continue;
    ids[left] = table.merged(slot);
    ids[right] = dead;
    next[left] = next[right];
    if (next[left] < count) {
      previous[next[left]] = left;
      offer(left, next[left]);
    }
    if (previous[left] >= 0) offer(previous[left], left);
  }
}

/** Binary min-heap of doubles. */
class KeyHeap {
  #keys: Float64Array;
  size = 0;

  constructor(expected: number) {
    this.#keys = new Float64Array(expected + 1);
  }

  push(key: number): void {
    if (this.size === this.#keys.length) {
      const grown = new Float64Array(this.size * 2);
      grown.set(this.#keys);
      this.#keys = grown;
    }
    const keys = this.#keys;
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (keys[parent] <= key) break;
      keys[at] = keys[parent];
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number {
    const keys = this.#keys;
    const top = keys[0];
    const last = keys[--this.size];
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && keys[child + 1] < keys[child]) child++;
      if (keys[child] >= last) break;
      keys[at] = keys[child];
      at = child;
    }
    keys[at] = last;
    return top;
  }
}
