/** A token that is found in the text before any other rule sees it. Fields as in tokenizer.json. */
export interface AddedToken {
  id: number;
  content: string;
  /** Control tokens: never made from plain text, left out of `decode` on request. */
  special: boolean;
  /** Matched after the normaliser ran (and normalised itself). */
  normalized: boolean;
  /** Swallows white space to the left. */
  lstrip: boolean;
  /** Swallows white space to the right. */
  rstrip: boolean;
  /** Only where no letter, digit or underscore touches it. */
  singleWord: boolean;
}

/** A part of a text: an added token's id, or plain text that starts at `start`. */
export type Section = { id: number } | { text: string; start: number };

/** A part [start, end) of a text, in UTF-16 code units as string indices are. */
export type TextRange = readonly [start: number, end: number];

const space = /\s/;
const wordCharacter = /[\p{L}\p{N}_]/u;

/** Finds added tokens in a text, leftmost and longest first. */
export class AddedTokenMatcher {
  readonly #tokens = new Map<string, AddedToken>();
  readonly #pattern?: RegExp;

  /** @param normalize applied to each token's text, for the stage behind the normaliser */
  constructor(tokens: readonly AddedToken[], normalize: (text: string) => string = (text) => text) {
    for (const token of tokens) {
      const text = normalize(token.content);
      if (text !== "") this.#tokens.set(text, token);
    }
    if (this.#tokens.size === 0) return;
    // One alternation: the regular expression engine makes a search tree of it, where a loop over hundreds of reserved
    // tokens at every "<" of a hostile text would not end.
    const texts = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    this.#pattern = new RegExp(texts.map((text) => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")).join("|"), "g");
  }

  /**
   * Splits `text`; empty parts are left out. Control tokens that touch one of the `plain` ranges are not seen.
   *
   * @param plain ranges [start, end) of the text, in order
   */
  split(text: string, plain: readonly TextRange[] = []): Section[] {
    if (this.#pattern === undefined) return text === "" ? [] : [{ text, start: 0 }];
    const sections: Section[] = [];
    const isPlain = rangeSearch(plain);
    let done = 0;
    this.#pattern.lastIndex = 0;
    for (let match = this.#pattern.exec(text); match !== null; match = this.#pattern.exec(text)) {
      const token = this.#tokens.get(match[0])!;
      let start = match.index;
      let end = start + match[0].length;
      if (
        start < done || (token.special && isPlain(start, end)) ||
        (token.singleWord && (touches(text[start - 1]) || touches(text[end])))
      ) {
        this.#pattern.lastIndex = start + 1;
        continue;
      }
      while (token.lstrip && start > done && space.test(text[start - 1])) start--;
      while (token.rstrip && end < text.length && space.test(text[end])) end++;
      if (start > done) sections.push({ text: text.slice(done, start), start: done });
      sections.push({ id: token.id });
      done = end;
    }
    if (done < text.length) sections.push({ text: text.slice(done), start: done });
    return sections;
  }
}

/** A function that says whether [start, end) touches one of the ranges; asked for rising starts only. */
export function rangeSearch(ranges: readonly TextRange[]): (start: number, end: number) => boolean {
  let next = 0;
  return (start, end) => {
    while (next < ranges.length && ranges[next][1] <= start) next++;
    return next < ranges.length && ranges[next][0] < end;
  };
}

function touches(character: string | undefined): boolean {
  return character !== undefined && wordCharacter.test(character);
}
