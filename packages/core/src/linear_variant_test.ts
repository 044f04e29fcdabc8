import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { decodeLinearVariant, encodeLinearVariant, type LinearVariant } from "./linear_variant.ts";

describe("variants of linear", () => {
  it("go through a number and back", () => {
    const variants: LinearVariant[] = [
      {},
      { mode: "gemv" },
      { mode: "gemm", tileRows: 63 },
      { fewRows: 255, run: 4095, prefetch: 15 },
      { mode: "gemm", fewRows: 1, tileRows: 1, run: 1 },
    ];
    for (const variant of variants) assertEquals(decodeLinearVariant(encodeLinearVariant(variant)), variant);
    assertEquals(encodeLinearVariant({}), 0);
    assertEquals(
      encodeLinearVariant({ mode: "gemm", fewRows: 3, tileRows: 5, run: 7, prefetch: 7 }),
      2 | 3 << 2 | 5 << 10 | 7 << 16 | 7 << 28,
    );
  });

  it("refuse what the format does not hold", () => {
    for (
      const variant of [{ fewRows: 256 }, { tileRows: 64 }, { run: 4096 }, { run: 0 }, { prefetch: 16 }, {
        fewRows: 1.5,
      }]
    ) {
      assertThrows(() => encodeLinearVariant(variant), Error, "of a variant of linear must be 1 to");
    }
    for (const code of [3, 2 ** 31 + 3, 2 ** 32, -1, 0.5]) assertEquals(decodeLinearVariant(code), undefined);
  });
});
