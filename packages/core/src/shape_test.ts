import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { DType } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import type { OpName } from "./native/abi.ts";
import type { Dim } from "./scalar.ts";
import { inferOutputs, type ShapeOptions } from "./shape.ts";
import type { Storage } from "./storage.ts";
import { contiguousStrides, type View } from "./view.ts";

const storage = {} as Storage;

function view(shape: readonly Dim[], dtype: DType = "f32", changes: Partial<View> = {}): View {
  return { storage, byteOffset: 0, dtype, shape, strides: contiguousStrides(shape), layout: "strided", ...changes };
}

const tokens = { symbol: "tokens", max: 8 } as const;
const packed = view([64, 32], "q4_0", { layout: "panel16" });
const cache = view([3, 2, 16, 32], "f16");
const pages = view([3], "i32");

/** Dtype and shape of each output. */
function shapes(op: OpName, inputs: readonly (View | undefined)[], options: ShapeOptions = {}): unknown[] {
  return inferOutputs(op, inputs, options).map(({ dtype, shape }) => [dtype, ...shape]);
}

describe("shape inference", () => {
  it("gives the outputs that the table words, symbols included", () => {
    const x = view([tokens, 4, 32]);
    assertEquals(shapes("silu", [x]), [["f32", tokens, 4, 32]]);
    assertEquals(shapes("rmsnorm_residual", [x, x, view([32])]), [["f32", tokens, 4, 32], ["f32", tokens, 4, 32]]);
    assertEquals(shapes("embedding", [view([tokens], "i32"), packed]), [["f32", tokens, 32]]);
    assertEquals(shapes("linear", [view([tokens, 32]), packed, view([64])]), [["f32", tokens, 64]]);
    assertEquals(shapes("linear", [view([tokens, 32]), packed, undefined]), [["f32", tokens, 64]]);
    assertEquals(shapes("quantize_rows", [view([tokens, 64])]), [["q8a", tokens, 64]]);
    assertEquals(shapes("matmul", [view([5, 3, 7]), view([5, 7, 2])]), [["f32", 5, 3, 2]]);
    assertEquals(shapes("topk", [view([5, 9])], { count: 4 }), [["f32", 5, 4], ["i32", 5, 4]]);
    assertEquals(shapes("take_rows", [view([tokens, 9])], { count: 1 }), [["f32", 1, 9]]);
    assertEquals(shapes("cross_entropy", [view([5, 9]), view([5], "i32")]), [["f32", 5]]);
    assertEquals(shapes("copy", [view([64, 32], "q4_0")]), [["f32", 64, 32]]);
    assertEquals(shapes("copy", [packed]), [["f32", 64, 32]]);
    assertEquals(shapes("kv_append", [view([tokens, 2, 32]), pages], { cache }), [["f16", 3, 2, 16, 32]]);
    assertEquals(shapes("attention", [view([tokens, 6, 32]), cache, cache, pages]), [["f32", tokens, 6, 32]]);
    const quantized = shapes("attention", [view([tokens, 6, 32]), cache, cache, pages], { quantized: true });
    assertEquals(quantized, [["q8a", tokens, 192]]);
  });

  it("says which operand is wrong, and by which other one", () => {
    const wrong: [string, OpName, (View | undefined)[], ShapeOptions?][] = [
      ["rmsnorm(x: f32 [2, 4], weight: f32 [3]): weight must be f32 [n] dense, and n is 4 in x", "rmsnorm", [
        view([2, 4]),
        view([3]),
      ]],
      ["silu(x: i32 [2]): x must be f32 [...]", "silu", [view([2], "i32")]],
      ["x must have dims", "silu", [view([])]],
      ["x must not be empty", "silu", [view([0, 3])]],
      ["weight is missing", "rmsnorm", [view([2, 4])]],
      ["x must be f32 [..., queries, keys]", "causal_softmax", [view([4])]],
      ["up must be f32 [..., n], and n is 4 in gate", "swiglu", [view([2, 4]), view([2, 3])]],
      ["b must have the leading dims of a", "matmul", [view([2, 3, 4]), view([3, 4, 5])]],
      ["b must be f32 [..., k, n], and k is 4 in a", "matmul", [view([3, 4]), view([5, 4])]],
      ["b must have the shape of a or of its trailing dims", "add", [view([2, 4]), view([2])]],
      ["weight must be contiguous (copy it first)", "rmsnorm", [view([2, 4]), view([4], "f32", { strides: [2] })]],
      ["rows of x must be contiguous (copy it first)", "linear", [
        view([2, 32], "f32", { strides: [1, 2] }),
        packed,
        undefined,
      ]],
      ["w must be packed [n, k] (packWeight packs)", "linear", [view([2, 32]), view([64, 32], "q4_0"), undefined]],
      ["k must divide by 32", "quantize_rows", [view([2, 33])]],
      ["k = 10 is not in 1..9", "topk", [view([5, 9])], { count: 10 }],
      ["count = 6 is not in 1..5", "take_rows", [view([5, 9])], { count: 6 }],
      ["inv_freq is longer than half of head_dim", "rope", [view([5, 2, 8]), view([5]), undefined]],
      ["inv_freq is longer than half of head_dim", "rmsnorm_rope", [view([5, 2, 8]), view([8]), view([5])]],
      ["positions must be i32 [tokens], and tokens is 5 in x", "rope", [
        view([5, 2, 8]),
        view([4]),
        view([4], "i32"),
      ]],
      ["no conversion from i32 to f32", "copy", [view([5], "i32")], { dtype: "f32" }],
      ["q4_0 is copied to f32 only, not f16", "copy", [packed], { dtype: "f16" }],
      ["x must be any|packed|keys|values [...]", "copy", [view([2, 32], "q8a")]],
      ["w must be weights [n, k]", "pack_weight", [view([2, 32], "i8")]],
      ["the cache is missing", "kv_append", [view([1, 2, 32]), pages]],
      ["cache must be f32|f16", "kv_append", [view([1, 2, 32]), pages], { cache: view([3, 2, 16, 32], "bf16") }],
      ["and kv_heads is 1 in x", "kv_append", [view([1, 1, 32]), pages], { cache }],
      ["v_cache must be f32|f16", "attention", [
        view([1, 6, 32]),
        cache,
        view([3, 2, 16, 32], "bf16"),
        pages,
      ]],
      ["heads of q are no multiple of kv_heads", "attention", [view([1, 5, 32]), cache, cache, pages]],
    ];
    for (const [text, op, inputs, options = {}] of wrong) {
      const error = assertThrows(() => inferOutputs(op, inputs, options), MllmError, text);
      assertEquals(error.code, "invalid_argument", text);
    }
  });
});
