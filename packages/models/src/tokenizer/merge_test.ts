import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { Random } from "../sampling/random.ts";
import { mergeSymbols } from "./merge.ts";
import { PairTable } from "./pair_table.ts";

/** The definition: again and again, the leftmost pair among those of lowest rank. */
function slowMerge(symbols: number[], table: PairTable): number[] {
  const ids = [...symbols];
  for (;;) {
    let [best, rank, merged] = [-1, Infinity, 0];
    for (let i = 0; i + 1 < ids.length; i++) {
      const slot = table.find(ids[i], ids[i + 1]);
      if (slot >= 0 && table.rank(slot) < rank) [best, rank, merged] = [i, table.rank(slot), table.merged(slot)];
    }
    if (best < 0) return ids;
    ids.splice(best, 2, merged);
  }
}

describe("mergeSymbols", () => {
  it("agrees with the definition", () => {
    const random = new Random(1);
    for (let round = 0; round < 500; round++) {
      const table = new PairTable();
      const symbols = 3 + random.bits() % 4;
      for (let rank = 0; rank < 30; rank++) {
        const known = symbols + rank;
        // Two merges of one rank happen with sentencepiece scores.
        table.set(random.bits() % known, random.bits() % known, rank >> (round & 1), known);
      }
      const ids = Array.from(
        { length: random.bits() % 40 },
        () => random.bits() % symbols - (random.bits() % 9 ? 0 : 9),
      );
      const input = Int32Array.from(ids, (id) => Math.max(id, -1));
      const expected = slowMerge([...input], table);
      mergeSymbols(input, input.length, table);
      assertEquals([...input].filter((id) => id !== -2), expected);
    }
  });
});

describe("PairTable", () => {
  it("grows and replaces", () => {
    const table = new PairTable();
    for (let i = 0; i < 5000; i++) table.set(i, i * 7 % 300, i, i + 1);
    table.set(3, 21, 77, 78);
    assertEquals(table.size, 5000);
    for (let i = 0; i < 5000; i++) assertEquals(table.rank(table.find(i, i * 7 % 300)), i === 3 ? 77 : i);
    assertEquals(table.find(3, 22), -1);
    assertEquals(table.find(-1, 22), -1);
  });
});
