import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { hashOn } from "./hash.ts";

describe("hashOn", () => {
  const places = 1024;
  const place = (seed: number, values: readonly number[]) => values.reduce(hashOn, seed) & (places - 1);

  /** Of all sequences, those that one seed puts into one place, and how many places others give them. */
  const spread = (sequences: readonly number[][]) => {
    const together = sequences.filter((values) => place(5, values) === 0).slice(0, 128);
    assertEquals(together.length, 128);
    // 128 balls in 1024 boxes take 120 of them. Seeds with the same low bits count as others, too.
    return [0, -1, 5 + 256, 5 + 2 ** 20, 0x811c9dc5].map((seed) => new Set(together.map((v) => place(seed, v))).size);
  };

  it("puts what one seed puts together apart for another", () => {
    const texts = Array.from({ length: 1 << 18 }, (_, i) => [i >> 12, i >> 6, i].map((byte) => 0x40 | byte & 0x3f));
    const pairs = Array.from({ length: 1 << 18 }, (_, i) => [i >> 9, i & 511]);
    for (const counts of [spread(texts), spread(pairs)]) assert(counts.every((count) => count > 100), `${counts}`);
  });
});
