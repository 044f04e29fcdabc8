import { MllmError, TextList } from "@mllm/core";
import { PairTable } from "./pair_table.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Ids above this are taken for a broken file; the largest vocabularies known have about 260,000. */
export const tokenIdMax = (1 << 22) - 1;

/** An `invalid_file` error about a tokenizer. */
export function broken(what: string): MllmError {
  return new MllmError("invalid_file", `tokenizer: ${what}`, {
    next: "Download the model's files again",
  });
}

/** A list of texts, of whichever form; undefined where there is none. `what` is one of them, for errors. */
export function textList(value: unknown, what: string): TextList | undefined {
  if (value instanceof TextList) return value;
  if (!Array.isArray(value)) return undefined;
  for (let i = 0; i < value.length; i++) if (typeof value[i] !== "string") throw broken(`${what} ${i} is not a text`);
  return TextList.from(value);
}

/**
 * Fills the table of merges, given as texts `"a b"` or, in a plain list, also as `["a", "b"]`. A pair whose parts or
 * result are not in the vocabulary is an error, as in the Rust library.
 */
export function readMerges(value: unknown, vocabulary: Vocabulary, special: ReadonlySet<number>): PairTable {
  if (!Array.isArray(value) && !(value instanceof TextList)) throw broken("merges is not a list");
  if (value.length > tokenIdMax) throw broken(`${value.length} merges are too many`);
  const table = new PairTable(value.length);
  // Vocabularies usually number their tokens in the order of the merges, which saves the dearest of three look-ups; where
  // two tokens share a text the guess could be the wrong one of them.
  const guesses = vocabulary.size === vocabulary.length;
  let [left, right, merged] = [-1, -1, -1];
  for (let rank = 0; rank < value.length; rank++) {
    if (value instanceof TextList) {
      const start = value.starts[rank];
      const end = value.end(rank);
      let space = start + 1;
      while (space < end && value.bytes[space] !== 0x20) space++;
      left = vocabulary.find(value.bytes, start, space);
      right = space < end ? vocabulary.find(value.bytes, space + 1, end) : -1;
    } else [left, right] = partsOf(value[rank], rank).map((text) => vocabulary.id(text));
    if (left >= 0 && right >= 0) {
      const next = merged + 1;
      const guessed = guesses && next < vocabulary.length && vocabulary.isJoined(next, left, right);
      merged = guessed ? next : vocabulary.findJoined(left, right);
    }
    if (left < 0 || right < 0 || merged < 0) {
      const [a, b] = partsOf(value.at(rank), rank).map((text) => JSON.stringify(text));
      throw broken(`merge ${rank}, ${a} with ${b}, is not about known tokens`);
    }
    if (!special.has(merged)) table.set(left, right, rank, merged);
  }
  return table;
}

function partsOf(merge: unknown, rank: number): [string, string] {
  let [left, right]: unknown[] = Array.isArray(merge) && merge.length === 2 ? merge : [];
  if (typeof merge === "string") {
    const space = merge.indexOf(" ", 1);
    if (space < 0) throw broken(`merge ${rank} is not a pair`);
    left = merge.slice(0, space);
    right = merge.slice(space + 1);
  }
  if (typeof left !== "string" || typeof right !== "string") throw broken(`merge ${rank} is not a pair of texts`);
  return [left, right];
}
