import type { TextList } from "@mllm/core";
import { hashOn, hashSeed } from "./hash.ts";

/**
 * Tokens by id and by text: a hash table over the bytes of their texts. A Map from strings takes ten times the memory and
 * several times as long to fill. An empty text stands for an id without a token; of tokens that share a text, the first
 * is found by it.
 */
export class Vocabulary {
  /** Number of ids. */
  readonly length: number;
  readonly #texts: TextList;
  /** Ids by the hash of their text, -1 for a free place; at most two thirds are used, so that searches end. */
  readonly #slots: Int32Array;
  #size = 0;
  #encoded = new Uint8Array(128);

  /** @param keep says which ids can be found by their text; all when absent */
  constructor(texts: TextList, keep: (id: number) => boolean = () => true) {
    this.#texts = texts;
    this.length = texts.length;
    this.#slots = new Int32Array(1 << (32 - Math.clz32(Math.max(16, texts.length * 1.5) - 1))).fill(-1);
    for (let id = 0; id < texts.length; id++) {
      if (this.byteLength(id) === 0 || !keep(id)) continue;
      const slot = this.#slotOf(id);
      if (this.#slots[slot] >= 0) continue;
      this.#slots[slot] = id;
      this.#size++;
    }
  }

  /** Number of different texts. */
  get size(): number {
    return this.#size;
  }

  /** Text of a token, or undefined for an id without one. */
  text(id: number): string | undefined {
    return this.#texts.at(id) || undefined;
  }

  /** The UTF-16 unit of a token whose text is one, else -1. */
  unit(id: number): number {
    const { bytes, starts } = this.#texts;
    const at = starts[id];
    const first = bytes[at];
    switch (this.byteLength(id)) {
      case 1:
        return first;
      case 2:
        return first < 0xc0 ? -1 : (first & 0x1f) << 6 | bytes[at + 1] & 0x3f;
      case 3:
        return first < 0xe0 ? -1 : (first & 0x0f) << 12 | (bytes[at + 1] & 0x3f) << 6 | bytes[at + 2] & 0x3f;
      default:
        return -1;
    }
  }

  /** Length of a token's text in UTF-8. */
  byteLength(id: number): number {
    return this.#texts.end(id) - this.#texts.starts[id];
  }

  /** Id of a token, or -1. Lone surrogates count as U+FFFD. */
  id(text: string): number {
    if (text.length * 3 > this.#encoded.length) this.#encoded = new Uint8Array(text.length * 3);
    return this.find(this.#encoded, 0, new TextEncoder().encodeInto(text, this.#encoded).written);
  }

  /** Id of the token whose text is bytes[start, end), or -1. */
  find(bytes: Uint8Array, start: number, end: number): number {
    return this.#slots[this.#search(bytes, start, end, end, end)];
  }

  /** Id of the token whose text is that of `left` and `right` together, or -1. */
  findJoined(left: number, right: number): number {
    const { bytes, starts } = this.#texts;
    return this.#slots[
      this.#search(bytes, starts[left], this.#texts.end(left), starts[right], this.#texts.end(right))
    ];
  }

  /** Whether the text of `id` is that of `left` and `right` together. */
  isJoined(id: number, left: number, right: number): boolean {
    const { bytes, starts } = this.#texts;
    return this.#equals(id, bytes, starts[left], this.#texts.end(left), starts[right], this.#texts.end(right));
  }

  /** Whether `id` is what its text finds. */
  isFound(id: number): boolean {
    return this.byteLength(id) > 0 && this.#slots[this.#slotOf(id)] === id;
  }

  /** From now on `id`, which has a text that some token can be found by, is the one that it finds. */
  prefer(id: number): void {
    this.#slots[this.#slotOf(id)] = id;
  }

  /** The ids that are found by their text, in no order. */
  ids(): Int32Array {
    return this.#slots.filter((id) => id >= 0);
  }

  #slotOf(id: number): number {
    const end = this.#texts.end(id);
    return this.#search(this.#texts.bytes, this.#texts.starts[id], end, end, end);
  }

  /** The slot of the token whose text is bytes[start, end) and then bytes[more, last), or the free one for it. */
  #search(bytes: Uint8Array, start: number, end: number, more: number, last: number): number {
    let hash = hashSeed;
    for (let i = start; i < end; i++) hash = hashOn(hash, bytes[i]);
    for (let i = more; i < last; i++) hash = hashOn(hash, bytes[i]);
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    while (this.#slots[slot] >= 0 && !this.#equals(this.#slots[slot], bytes, start, end, more, last)) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #equals(id: number, bytes: Uint8Array, start: number, end: number, more: number, last: number): boolean {
    if (this.byteLength(id) !== end - start + last - more) return false;
    const own = this.#texts.bytes;
    let at = this.#texts.starts[id];
    for (let i = start; i < end; i++) if (own[at++] !== bytes[i]) return false;
    for (let i = more; i < last; i++) if (own[at++] !== bytes[i]) return false;
    return true;
  }
}
