import { assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { KernelSelector } from "./kernel_selector.ts";

const selector = new KernelSelector([
  { op: "linear", dtypes: ["q4_0"], phase: "decode", level: "avx2", variant: 3, threads: 0, reason: "GEMV" },
  { op: "linear", phase: "decode", level: "portable", variant: 9, threads: 0, reason: "another level" },
  { op: "linear", phase: "prefill", variant: 4, threads: 0, reason: "GEMM" },
  { op: "*", maxElements: 1000, variant: 0, threads: 1, reason: "too small to share" },
], "avx2");

describe("KernelSelector", () => {
  it("takes the first row that fits", () => {
    assertEquals(selector.choose("linear", "q4_0", "decode", 5000).variant, 3);
    assertEquals(selector.choose("linear", "q8_0", "prefill", 5000).variant, 4);
    assertEquals(selector.choose("linear", "q8_0", "decode", 1000).threads, 1);
    assertEquals(selector.choose("add", "f32", "prefill", 1001).threads, 0);
  });

  it("explains every choice", () => {
    assertEquals(selector.explain({ op: "linear", dtypes: ["q4_0"], phase: "decode", elements: 5000 }), [
      "linear decode (q4_0): variant 3 on all threads: GEMV",
    ]);
    assertEquals(selector.explain({ op: "linear", dtypes: ["q8_0", "q4_0", "f32"], phase: "decode", elements: 9 }), [
      "linear decode (q8_0 f32): variant 0 on 1 thread: too small to share",
      "linear decode (q4_0): variant 3 on all threads: GEMV",
    ]);
    const [line] = selector.explain({ op: "add", dtypes: ["f32"], phase: "decode", elements: 5000 });
    assertStringIncludes(line, "no row");
  });
});
