/** How many columns text takes on a terminal. */
import stringWidth from "string-width";

const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** What the user sees as characters: an accent stays with its letter, a family emoji is one. */
export function graphemes(text: string): string[] {
  // Plain ASCII needs no segmenter, and a big paste is mostly that.
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(text)) return [...text];
  return Array.from(segmenter.segment(text), (part) => part.segment);
}

/** Columns of `text`: 2 for wide characters and emoji, 0 for combining marks. Escape sequences count nothing. */
export function columnsOf(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length;
  return stringWidth(text);
}
