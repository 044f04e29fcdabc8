import { decodeUtf8, isUtf8 } from "./utf8.ts";

/**
 * A list of texts as UTF-8 in one piece of memory, decoded when asked for: the strings of a vocabulary would be 300,000
 * objects, which take ten times the memory and longer to make than anything else of a header.
 */
export class TextList implements Iterable<string> {
  /** Number of texts. */
  readonly length: number;

  /**
   * Text i lies at bytes[starts[i], starts[i + 1] - gap); so `starts` has one number more than there are texts. The bytes
   * are not copied, and have to be UTF-8.
   */
  constructor(
    /** The texts, one after the other. */
    readonly bytes: Uint8Array,
    /** Where each begins, and one number for the end of the last. */
    readonly starts: Uint32Array,
    /** Bytes between two texts. */
    readonly gap = 0,
  ) {
    this.length = starts.length - 1;
  }

  /** The list of these texts; lone surrogates become U+FFFD. */
  static from(texts: readonly string[]): TextList {
    const encoder = new TextEncoder();
    const starts = new Uint32Array(texts.length + 1);
    let bytes = new Uint8Array(16 * texts.length + 64);
    let end = 0;
    for (let i = 0; i < texts.length; i++) {
      const worst = end + 3 * texts[i].length;
      if (worst > bytes.length) {
        const grown = new Uint8Array(Math.max(worst, 2 * bytes.length));
        grown.set(bytes);
        bytes = grown;
      }
      starts[i] = end;
      end += encoder.encodeInto(texts[i], bytes.subarray(end)).written;
    }
    starts[texts.length] = end;
    return new TextList(bytes.slice(0, end), starts);
  }

  /** Where text `index` ends among the bytes. */
  end(index: number): number {
    return this.starts[index + 1] - this.gap;
  }

  /** A text, or undefined where there is none. */
  at(index: number): string | undefined {
    return index >= 0 && index < this.length ? decodeUtf8(this.bytes, this.starts[index], this.end(index)) : undefined;
  }

  /** All texts in order. */
  *[Symbol.iterator](): Generator<string> {
    for (let i = 0; i < this.length; i++) yield this.at(i)!;
  }

  /** The same list where all of it is UTF-8; else one with U+FFFD for what is not. */
  wellFormed(): TextList {
    for (let i = 0; i < this.length; i++) {
      if (!isUtf8(this.bytes, this.starts[i], this.end(i))) return TextList.from([...this]);
    }
    return this;
  }
}
