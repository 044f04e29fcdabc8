import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MllmError } from "./errors.ts";
import { contiguousStrides, isContiguous, reshapeStrides, resolveShape } from "./view.ts";

const tokens = { symbol: "tokens", max: 16 } as const;

describe("views", () => {
  it("have row-major strides", () => {
    assertEquals(contiguousStrides([2, 3, 4]), [12, 4, 1]);
    assertEquals(contiguousStrides([tokens, 4]), [4, 1]);
    assertThrows(() => contiguousStrides([2, tokens]), MllmError, "outermost");
    assertEquals(isContiguous([2, 3], [3, 1]), true);
    assertEquals(isContiguous([1, 3], [99, 1]), true);
    assertEquals(isContiguous([2, 3], [4, 1]), false);
    assertEquals(isContiguous([tokens, 3], [3, 1]), true);
  });

  it("are reshaped without a copy where strides allow", () => {
    assertEquals(reshapeStrides([6, 4], [4, 1], [2, 3, 4]), [12, 4, 1]);
    assertEquals(reshapeStrides([6, 4], [5, 1], [2, 3, 4]), [15, 5, 1]);
    assertEquals(reshapeStrides([6, 4], [5, 1], [24]), undefined);
    assertEquals(reshapeStrides([6, 4], [1, 6], [6, 2, 2]), [1, 12, 6]);
    assertEquals(reshapeStrides([6, 4], [5, 1], [6, 1, 4])?.[2], 1);
    assertEquals(reshapeStrides([1, 4], [99, 1], [4]), [1]);
    assertEquals(reshapeStrides([4], [1], [1, 4, 1])?.[1], 1);
  });

  it("keep a symbolic dim whole", () => {
    assertEquals(reshapeStrides([tokens, 12], [12, 1], [tokens, 3, 4]), [12, 4, 1]);
    assertEquals(reshapeStrides([tokens, 12], [40, 1], [tokens, 3, 4]), [40, 4, 1]);
    assertEquals(reshapeStrides([tokens, 3, 4], [12, 4, 1], [tokens, 12]), [12, 1]);
    assertEquals(reshapeStrides([tokens, 12], [12, 1], [16, 12]), undefined);
    assertEquals(resolveShape([tokens, 12], [-1, 3, 4]), [tokens, 3, 4]);
    assertEquals(resolveShape([tokens, 12], [tokens, -1]), [tokens, 12]);
    assertThrows(() => resolveShape([tokens, 12], [tokens, 13]), MllmError, "tokens<=16");
  });
});
