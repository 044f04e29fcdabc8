import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { addCosts, type CostedOp, noCost, opCost, totalBytes } from "./cost.ts";
import { type DType, q8aRowBytes } from "./dtype.ts";
import type { OpName } from "./native/abi.ts";
import type { Dim, Scalar, TokenDim } from "./scalar.ts";
import type { Storage } from "./storage.ts";
import { contiguousStrides, type View } from "./view.ts";

const tokens: TokenDim = { symbol: "tokens", max: 512 };
const position = { register: "position" } as const;

function view(dtype: DType, shape: readonly Dim[], packedBytes?: number): View {
  const storage = { bytes: packedBytes ?? 0 } as Storage;
  const layout = packedBytes === undefined ? "strided" : "panel16";
  return { storage, byteOffset: 0, dtype, shape, strides: contiguousStrides(shape), layout };
}

function cost(
  op: OpName,
  inputs: CostedOp["inputs"],
  outputs: readonly View[],
  run: { tokens: number; position: number },
  ints: readonly Scalar[] = [],
) {
  const { weightBytes, cacheBytes, activationBytes, operations } = opCost({ op, inputs, outputs, ints }, run);
  return [weightBytes, cacheBytes, activationBytes, operations];
}

/** Pairs of a query and a key that it sees, one by one. */
function visiblePairs(queries: number, position: number, window: number): { pairs: number; keys: number } {
  let pairs = 0;
  const keys = new Set<number>();
  for (let t = 0; t < queries; t++) {
    for (let j = 0; j <= position + t; j++) {
      if (window > 0 && j <= position + t - window) continue;
      pairs++;
      keys.add(j);
    }
  }
  return { pairs, keys: keys.size };
}

describe("opCost", () => {
  it("linear: packed weights once, 2 rows n k operations", () => {
    const [n, k] = [96, 64];
    const packed = n * k / 32 * 18;
    const w = view("q4_0", [n, k], packed);
    for (const rows of [1, 7, 512]) {
      const run = { tokens: rows, position: 3 };
      const out = view("f32", [tokens, n]);
      const q8a = rows * q8aRowBytes(k) + rows * n * 4;
      assertEquals(cost("linear", [view("q8a", [tokens, k]), w], [out], run), [packed, 0, q8a, 2 * rows * n * k]);
      const f32 = rows * (k + n) * 4;
      const bias = view("f32", [n]);
      const expected = [packed + n * 4, 0, f32, rows * n * (2 * k + 1)];
      assertEquals(cost("linear", [view("f32", [tokens, k]), w, bias], [out], run), expected);
    }
  });

  it("row ops: every operand once", () => {
    const x = view("f32", [tokens, 64]);
    const run = { tokens: 5, position: 0 };
    assertEquals(cost("add", [x, x], [x], run), [0, 0, 3 * 5 * 64 * 4, 5 * 64]);
    assertEquals(cost("add", [x, view("f32", [64])], [x], run), [0, 0, (2 * 5 + 1) * 64 * 4, 5 * 64]);
    assertEquals(cost("rmsnorm_residual", [x, x, view("f32", [64])], [x, x], run), [256, 0, 4 * 1280, 5 * 5 * 64]);
    assertEquals(cost("quantize_rows", [x], [view("q8a", [tokens, 64])], run), [0, 0, 1280 + 5 * 128, 3 * 320]);
  });

  it("tables and slices: only the rows that are taken", () => {
    const run = { tokens: 3, position: 9 };
    const table = view("q8_0", [1000, 64], 1000 * 68);
    const ids = view("i32", [tokens]);
    const out = view("f32", [tokens, 64]);
    assertEquals(cost("embedding", [ids, table], [out], run), [3 * 68, 0, 3 * 4 + 3 * 256, 0]);
    const row = view("f32", [1, 64]);
    assertEquals(cost("take_rows", [out], [row], run, [{ register: "last" }]), [0, 0, 512, 0]);
  });

  it("the cache: what the queries see, in the cache's type", () => {
    const [heads, kvHeads, headDim] = [4, 2, 32];
    const q = view("f32", [tokens, heads, headDim]);
    const x = view("f32", [tokens, kvHeads, headDim]);
    for (const [dtype, bytes] of [["f32", 4], ["f16", 2]] as const) {
      const cache = view(dtype, [99, kvHeads, 16, headDim]);
      const pages = view("i32", [99]);
      const appended = cost("kv_append", [x, pages], [cache], { tokens: 6, position: 40 }, [position]);
      assertEquals(appended, [0, 6 * kvHeads * headDim * bytes, 6 * kvHeads * headDim * 4, 0]);
      for (const [count, at, window] of [[1, 0, 0], [1, 77, 0], [9, 20, 0], [9, 20, 4], [30, 0, 12], [5, 8, 100]]) {
        const { pairs, keys } = visiblePairs(count, at, window);
        const run = { tokens: count, position: at };
        assertEquals(cost("attention", [q, cache, cache, pages], [q], run, [position, window]), [
          0,
          2 * keys * kvHeads * headDim * bytes,
          2 * count * heads * headDim * 4,
          4 * heads * headDim * pairs,
        ]);
      }
    }
  });

  it("matmul counts its inner length, ops over rows their input", () => {
    const run = { tokens: 1, position: 0 };
    const [a, b, c] = [view("f32", [2, 3, 5]), view("f32", [2, 5, 7]), view("f32", [2, 3, 7])];
    assertEquals(cost("matmul", [a, b], [c], run), [0, 0, (30 + 70 + 42) * 4, 2 * 42 * 5]);
    assertEquals(cost("argmax", [view("f32", [2, 9])], [view("i32", [2])], run), [0, 0, 80, 18]);
  });

  it("costs add up", () => {
    const one = { weightBytes: 1, cacheBytes: 2, activationBytes: 3, operations: 4 };
    assertEquals(addCosts(noCost, one), one);
    assertEquals(totalBytes(addCosts(one, one)), 12);
  });
});
