import { assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type KernelQuery, type KernelRow, KernelSelector } from "./kernel_selector.ts";
import { encodeLinearVariant } from "./linear_variant.ts";

const rows: readonly KernelRow[] = [
  { op: "linear", dtypes: ["q4_0"], phase: "decode", level: "avx2", variant: 1, threads: 0, reason: "GEMV" },
  { op: "linear", phase: "decode", level: "portable", variant: 9, threads: 0, reason: "another level" },
  { op: "linear", phase: "prefill", variant: 4, threads: 0, reason: "GEMM" },
  { op: "*", elements: { max: 1000 }, variant: 0, threads: 1, reason: "too small to share" },
];
const selector = new KernelSelector(rows, "avx2");

const query: KernelQuery = {
  op: "linear",
  dtype: "q4_0",
  x: "q8a",
  phase: "decode",
  elements: 5000,
  rows: 1,
  n: 50,
  k: 100,
};

describe("KernelSelector", () => {
  it("takes the first row that fits", () => {
    assertEquals(selector.choose(query).variant, 1);
    assertEquals(selector.choose({ ...query, dtype: "q8_0", phase: "prefill" }).variant, 4);
    assertEquals(selector.choose({ ...query, dtype: "q8_0", elements: 1000 }).threads, 1);
    assertEquals(selector.choose({ ...query, op: "add", dtype: "f32", phase: "prefill", elements: 1001 }).threads, 0);
  });

  it("holds rows to every condition that they have", () => {
    const conditions: Partial<KernelRow>[] = [
      { dtypes: ["q8_0"] },
      { x: ["f32"] },
      { level: "portable" },
      { cpu: ["zen3", "zen5"] },
      { phase: "prefill" },
      { elements: { min: 5001 } },
      { rows: { min: 2 } },
      { n: { min: 51, max: 60 } },
      { n: { min: 40, max: 49 } },
      { k: { max: 99 } },
    ];
    for (const condition of conditions) {
      const row: KernelRow = { op: "linear", variant: 7, threads: 0, reason: "", ...condition };
      assertEquals(new KernelSelector([row], "avx2", "zen4").choose(query).variant, 0, JSON.stringify(condition));
    }
    const all: KernelRow = {
      op: "linear",
      dtypes: ["q4_0"],
      x: ["q8a"],
      level: "avx2",
      cpu: ["zen3", "zen4"],
      phase: "decode",
      elements: { min: 5000, max: 5000 },
      rows: { max: 1 },
      n: { min: 50, max: 50 },
      k: { min: 100 },
      variant: 7,
      threads: 0,
      reason: "",
    };
    assertEquals(new KernelSelector([all], "avx2", "zen4").choose(query).variant, 7);
    assertEquals(new KernelSelector([all], "avx2").choose(query).variant, 0, "a CPU without a name");
    assertEquals(new KernelSelector([all], "avx2", "zen4").choose({ ...query, k: undefined }).variant, 0);
  });

  it("explains every choice", () => {
    assertEquals(selector.explain({ ...query, dtypes: ["q4_0"] }), [
      "linear decode (q4_0): [any CPU] GEMV on all threads: GEMV",
    ]);
    assertEquals(selector.explain({ ...query, dtypes: ["q8_0", "q4_0", "f32"], elements: 9 }), [
      "linear decode (q8_0 f32): [any CPU] the level's kernel on 1 thread: too small to share",
      "linear decode (q4_0): [any CPU] GEMV on all threads: GEMV",
    ]);
    const [line] = selector.explain({ ...query, op: "add", dtypes: ["f32"] });
    assertStringIncludes(line, "no row");
    const variant = encodeLinearVariant({ fewRows: 6, tileRows: 12, run: 8 });
    const reason = "measured";
    assertEquals(
      new KernelSelector([{ op: "linear", variant, threads: 3, reason, tuned: true }], "avx2").explain({
        ...query,
        dtypes: ["f16"],
      }),
      [
        "linear decode (f16): [tuned] GEMV or GEMM by the rows, GEMV up to 6 rows, tiles of 12 rows, runs of 8 panels " +
        "on 3 threads: measured",
      ],
    );
    const named = new KernelSelector([{ op: "add", cpu: ["zen4"], variant: 0, threads: 2, reason }], "avx2", "zen4");
    assertStringIncludes(named.explain({ ...query, op: "add", dtypes: ["f32"] })[0], "[zen4] the level's kernel on 2");
  });
});
