import type { DecodeOptions, Tokenizer } from "./tokenizer.ts";

/**
 * Turns ids into text one at a time. A character whose bytes are spread over several tokens appears whole, with the
 * token that completes it. What all `push` calls and `flush` return, joined, is exactly `tokenizer.decode(ids)`.
 */
export class StreamingDecoder {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecial: boolean;
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  #leadingSpaces: number;

  /**
   * Starts at the beginning of a text.
   *
   * @param tokenizer the tokenizer whose ids come
   * @param options as for `decode`
   */
  constructor(tokenizer: Tokenizer, { skipSpecial = false }: DecodeOptions = {}) {
    this.#tokenizer = tokenizer;
    this.#skipSpecial = skipSpecial;
    this.#leadingSpaces = tokenizer.leadingSpaces;
  }

  /** The text that is certain after one more token; often empty in the middle of a character. */
  push(id: number): string {
    if (this.#skipSpecial && this.#tokenizer.isSpecial(id)) return "";
    let bytes = this.#tokenizer.tokenBytes(id);
    while (this.#leadingSpaces > 0 && bytes.length > 0) {
      if (bytes[0] !== 0x20) this.#leadingSpaces = 0;
      else {
        bytes = bytes.subarray(1);
        this.#leadingSpaces--;
      }
    }
    return this.#utf8.decode(bytes, { stream: true });
  }

  /** Ends the text: an unfinished character becomes U+FFFD. The decoder can then be used for another text. */
  flush(): string {
    this.#leadingSpaces = this.#tokenizer.leadingSpaces;
    return this.#utf8.decode();
  }
}
