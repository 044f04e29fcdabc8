import { MllmError } from "@mllm/core";
import { type AddedToken, AddedTokenMatcher, rangeSearch, type TextRange } from "./added_tokens.ts";
import { endOfTurnTexts } from "./end_of_turn.ts";
import { type ByteRules, bytesOfToken } from "./token_bytes.ts";
import type { Vocabulary } from "./vocabulary.ts";
import type { WordEncoder } from "./word_encoder.ts";

/** Options of `Tokenizer.encode`. */
export interface EncodeOptions {
  /** Whether control tokens written in the text become those tokens (default) or stay plain text. */
  parseSpecial?: boolean;
  /** Whether to add what the model wants around a text, such as a BOS token. Default: no. */
  addSpecial?: boolean;
  /** Ranges of the text, in order, in which control tokens stay plain text whatever `parseSpecial` says. */
  plain?: readonly TextRange[];
}

/** Options of `Tokenizer.decode` and StreamingDecoder. */
export interface DecodeOptions {
  /** Leave control tokens out. Default: no. */
  skipSpecial?: boolean;
}

/** Text to token ids and back. */
export interface Tokenizer {
  /** Number of ids, unused ones included: the highest id + 1. The model's logits may be wider (padding). */
  readonly vocabSize: number;
  /** Token ids of a text. Lone surrogates count as U+FFFD. Throws `invalid_argument` beyond 16 Mi characters. */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Text of ids: their bytes joined, read as UTF-8 with U+FFFD for what is not valid. Ids without a token give
   * nothing.
   */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /** The bytes that one token stands for; empty for an id without a token. */
  tokenBytes(id: number): Uint8Array;
  /** Id of the token with exactly this text in the vocabulary's own writing (`Ġthe`, `▁the`, `<|im_end|>`). */
  tokenId(text: string): number | undefined;
  /** Text of a token in the vocabulary's own writing. */
  tokenText(id: number): string | undefined;
  /** Texts of all control tokens. */
  readonly specialTexts: readonly string[];
  /** Whether this is a control token. */
  isSpecial(id: number): boolean;
  /** First token of a sequence, where the vocabulary names one. */
  readonly bosId?: number;
  /**
   * All tokens that end a reply: the named ones and well-known control tokens such as `<|im_end|>` and `<|eot_id|>`.
   */
  readonly eosIds: number[];
  /**
   * How many leading spaces `decode` drops: 1 for sentencepiece vocabularies that put one before every text, else 0.
   */
  readonly leadingSpaces: number;
}

/** The parts that a Tokenizer is made of; both tokenizer.json and GGUF metadata come down to these. */
export interface TokenizerParts {
  /** All tokens, added ones included. */
  vocabulary: Vocabulary;
  added: readonly AddedToken[];
  normalize: (text: string) => string;
  /** Splits plain text into words; `index` is 0 for the part that the whole text starts with. */
  split: (text: string, index: number) => readonly string[];
  words: WordEncoder;
  bytes: ByteRules;
  leadingSpaces: number;
  prefixIds: readonly number[];
  suffixIds: readonly number[];
  bosId?: number;
  eosIds: readonly number[];
}

const textLengthMax = 16 * 1024 * 1024;

/** The one implementation of Tokenizer. */
export class VocabularyTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId?: number;
  readonly eosIds: number[];
  readonly leadingSpaces: number;
  readonly specialTexts: readonly string[];
  readonly #parts: TokenizerParts;
  readonly #special: Set<number>;
  readonly #bytes: (Uint8Array | undefined)[] = [];
  /** Matchers before and behind the normaliser, with and without control tokens; made when first used. */
  readonly #matchers = new Map<boolean, [AddedTokenMatcher, AddedTokenMatcher]>();

  constructor(parts: TokenizerParts) {
    this.#parts = parts;
    this.vocabSize = parts.vocabulary.length;
    this.leadingSpaces = parts.leadingSpaces;
    this.bosId = parts.bosId;
    this.specialTexts = parts.added.filter((token) => token.special).map((token) => token.content);
    this.#special = new Set(parts.added.filter((token) => token.special).map((token) => token.id));
    const known = endOfTurnTexts.map((text) => parts.vocabulary.id(text));
    this.eosIds = [...new Set([...parts.eosIds, ...known.filter((id) => this.#special.has(id))])];
  }

  encode(text: string, { parseSpecial = true, addSpecial = false, plain = [] }: EncodeOptions = {}): number[] {
    if (typeof text !== "string") {
      throw new MllmError("invalid_argument", `what is tokenized must be a text, not ${typeof text}`);
    }
    if (text.length > textLengthMax) {
      throw new MllmError("invalid_argument", `a text of ${text.length} characters is too long to tokenize`, {
        next: `Split it into parts of at most ${textLengthMax} characters`,
      });
    }
    const [raw, normalized] = this.#matchersFor(parseSpecial);
    // Behind the normaliser the ranges no longer fit, so a part that touches one has no control tokens at all.
    const normalizedPlain = plain.length === 0 ? normalized : this.#matchersFor(false)[1];
    const isPlain = rangeSearch(plain);
    const out: number[] = addSpecial ? [...this.#parts.prefixIds] : [];
    for (const section of raw.split(text.toWellFormed(), plain)) {
      if ("id" in section) {
        out.push(section.id);
        continue;
      }
      const matcher = isPlain(section.start, section.start + section.text.length) ? normalizedPlain : normalized;
      for (const part of matcher.split(this.#parts.normalize(section.text))) {
        if ("id" in part) out.push(part.id);
        else this.#encodePlain(part.text, section.start + part.start, out);
      }
    }
    if (addSpecial) out.push(...this.#parts.suffixIds);
    return out;
  }

  decode(ids: readonly number[], { skipSpecial = false }: DecodeOptions = {}): string {
    const pieces = ids.filter((id) => !skipSpecial || !this.#special.has(id)).map((id) => this.tokenBytes(id));
    const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    let start = 0;
    while (start < this.leadingSpaces && bytes[start] === 0x20) start++;
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(start));
  }

  tokenBytes(id: number): Uint8Array {
    if (!Number.isInteger(id) || id < 0) throw new MllmError("invalid_argument", `${id} is not a token id`);
    const text = this.#parts.vocabulary.text(id);
    if (text === undefined) return new Uint8Array(0);
    return this.#bytes[id] ??= bytesOfToken(text, this.#parts.bytes);
  }

  tokenId(text: string): number | undefined {
    const id = this.#parts.vocabulary.id(text);
    return id < 0 ? undefined : id;
  }

  tokenText(id: number): string | undefined {
    return this.#parts.vocabulary.text(id);
  }

  isSpecial(id: number): boolean {
    return this.#special.has(id);
  }

  #encodePlain(text: string, index: number, out: number[]): void {
    for (const word of this.#parts.split(text, index)) this.#parts.words.encode(word, out);
  }

  #matchersFor(parseSpecial: boolean): [AddedTokenMatcher, AddedTokenMatcher] {
    let matchers = this.#matchers.get(parseSpecial);
    if (matchers === undefined) {
      const tokens = this.#parts.added.filter((token) => parseSpecial || !token.special);
      matchers = [
        new AddedTokenMatcher(tokens.filter((token) => !token.normalized)),
        new AddedTokenMatcher(tokens.filter((token) => token.normalized), this.#parts.normalize),
      ];
      this.#matchers.set(parseSpecial, matchers);
    }
    return matchers;
  }
}
