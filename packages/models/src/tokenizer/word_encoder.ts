import { mergeSymbols, type MergeTable } from "./merge.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** What a WordEncoder needs to know of a vocabulary. */
export interface WordEncoderOptions {
  /** The tokens that text may become. */
  vocabulary: Vocabulary;
  /** Control tokens: plain text never becomes one, not even by way of a vocabulary that spells one out. */
  special: ReadonlySet<number>;
  merges: MergeTable;
  /** A word that is in the vocabulary as a whole is that token, whatever the merges say (Llama 3). */
  ignoreMerges: boolean;
  /** Ids of `<0x00>` … `<0xFF>` for characters that the vocabulary lacks. */
  byteIds?: Int32Array;
  /** Token of what nothing else can express; without it, such characters vanish as in the reference implementation. */
  unknownId?: number;
  /** Whether neighbouring unknown characters are one unknown token. */
  fuseUnknown: boolean;
}

const cachedWordsMax = 20_000;
const cachedLengthMax = 48;

/**
 * Turns one word (a piece from the pre-tokenizer, or a whole text where there is none) into ids by merging characters.
 */
export class WordEncoder {
  readonly #options: WordEncoderOptions;
  /** Id of each one-character token of the basic plane, -1 where there is none; the rest is looked up by its text. */
  readonly #characters = new Int32Array(0x10000).fill(-1);
  readonly #cache = new Map<string, readonly number[]>();
  readonly #utf8 = new TextEncoder();

  constructor(options: WordEncoderOptions) {
    this.#options = options;
    const { vocabulary, special } = options;
    for (let id = 0; id < vocabulary.length; id++) {
      const unit = vocabulary.unit(id);
      if (unit >= 0 && vocabulary.isFound(id) && !special.has(id)) this.#characters[unit] = id;
    }
  }

  /** Appends the ids of `word` to `out`. */
  encode(word: string, out: number[]): void {
    let ids = this.#cache.get(word);
    if (ids === undefined) {
      ids = this.#encode(word);
      if (word.length <= cachedLengthMax) {
        if (this.#cache.size >= cachedWordsMax) this.#cache.clear();
        this.#cache.set(word, ids);
      }
    }
    for (let i = 0; i < ids.length; i++) out.push(ids[i]);
  }

  #encode(word: string): number[] {
    const { vocabulary, special, merges, ignoreMerges } = this.#options;
    if (ignoreMerges) {
      const id = vocabulary.id(word);
      if (id >= 0 && !special.has(id)) return [id];
    }
    const symbols = new Int32Array(word.length);
    const starts = new Int32Array(word.length + 1);
    let count = 0;
    for (let i = 0; i < word.length;) {
      const unit = word.charCodeAt(i);
      const wide = unit >= 0xd800 && unit < 0xdc00 && i + 1 < word.length;
      symbols[count] = wide ? vocabulary.id(word.slice(i, i + 2)) : this.#characters[unit];
      starts[count++] = i;
      i += wide ? 2 : 1;
    }
    starts[count] = word.length;
    mergeSymbols(symbols, count, merges);
    const out: number[] = [];
    for (let i = 0; i < count; i++) {
      if (symbols[i] >= 0) out.push(symbols[i]);
      else if (symbols[i] === -1) this.#unknown(word.slice(starts[i], starts[i + 1]), out);
    }
    return out;
  }

  #unknown(character: string, out: number[]): void {
    const { byteIds, unknownId, fuseUnknown } = this.#options;
    if (byteIds !== undefined) {
      for (const byte of this.#utf8.encode(character)) out.push(byteIds[byte]);
    } else if (unknownId !== undefined && !(fuseUnknown && out.at(-1) === unknownId)) {
      out.push(unknownId);
    }
  }
}
