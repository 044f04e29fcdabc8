/** Wraps streamed text at words: a word that turns out too long for its row is taken back and put on the next. */
import { columnsOf, graphemes } from "./width.ts";

/** Wide characters (CJK, emoji) may be parted anywhere. */
function breaksAnywhere(grapheme: string): boolean {
  return columnsOf(grapheme) > 1;
}

/**
 * Turns pieces of a reply into what to write on a terminal. Every piece is written at once; nothing is held back until
 * a word is complete. Inside ``` fences nothing is wrapped, so that code can be copied. Control characters other than
 * tab and line end are dropped: a model's output can't drive the terminal.
 */
export class WordWrapper {
  #columns: () => number;
  /** Columns on this row before the word. */
  #before = 0;
  #word = "";
  #line = "";
  #inFence = false;

  /** `columns`: the width of the window, asked again for every piece. */
  constructor(columns: () => number) {
    this.#columns = columns;
  }

  /** What to write for this piece; rows end with \r\n. */
  push(piece: string): string {
    // The last column stays free: a terminal that has filled it waits in a state that is easy to get wrong.
    const limit = Math.max(10, this.#columns() - 1);
    let out = "";
    // deno-lint-ignore no-control-regex
    for (const grapheme of graphemes(piece.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, ""))) {
      out += grapheme === "\n" ? this.#newline() : this.#put(grapheme, limit);
    }
    return out;
  }

  #newline(): string {
    if (/^\s*(```|~~~)/.test(this.#line)) this.#inFence = !this.#inFence;
    this.#before = 0;
    this.#word = "";
    this.#line = "";
    return "\r\n";
  }

  #put(grapheme: string, limit: number): string {
    if (this.#line.length < 80) this.#line += grapheme; // only its beginning matters
    if (this.#inFence) return grapheme;
    if (grapheme === " " || grapheme === "\t") {
      this.#before += columnsOf(this.#word);
      this.#word = "";
      const width = grapheme === "\t" ? 4 : 1;
      if (this.#before + width > limit) {
        this.#before = 0;
        return "\r\n"; // the blank that a row ends with is its line end
      }
      this.#before += width;
      return " ".repeat(width);
    }
    if (breaksAnywhere(grapheme)) {
      this.#before += columnsOf(this.#word);
      this.#word = "";
    }
    const word = this.#word + grapheme;
    const width = columnsOf(word);
    if (this.#before + width <= limit) {
      this.#word = word;
      return grapheme;
    }
    const written = columnsOf(this.#word);
    if (width > limit || written === 0 || this.#before === 0) {
      // Nothing to take back, or the word fills rows by itself.
      this.#before = 0;
      this.#word = grapheme;
      return `\r\n${grapheme}`;
    }
    this.#before = 0;
    this.#word = word;
    return `\x1b[${written}D\x1b[K\r\n${word}`;
  }
}
