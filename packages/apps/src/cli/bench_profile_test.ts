import { describe, it } from "@std/testing/bdd";
import { assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { addCosts, noCost, type OpCost } from "@mllm/core";
import { Profiler, profileTable } from "./bench_profile.ts";
import type { CapturedProgram } from "../engine.ts";
import { markdownTable } from "../markdown_table.ts";

const cost: OpCost = { weightBytes: 100, cacheBytes: 20, activationBytes: 3, operations: 1000 };

/** A program whose commands cost `ns` each per run. */
class FakeProgram implements CapturedProgram {
  readonly arenaBytes = 3 << 20;
  readonly lowerBoundBytes = 2 << 20;
  readonly commands: CapturedProgram["commands"];
  runs = 0;

  constructor(readonly ops: readonly (readonly ["linear" | "add", string, number])[]) {
    this.commands = ops.map(([op, kind]) => {
      const query = { op, dtype: "f32", x: "f32", phase: "decode", elements: 8, rows: 1, n: 8 } as const;
      return { op, kind, text: op, query, variant: 0, threads: 0, reason: "", cost: () => cost };
    });
  }

  profile() {
    let total = noCost;
    for (let i = 0; i < this.runs; i++) total = addCosts(total, cost);
    return this.ops.map(([op, kind, ns]) => (
      { op, kind, text: op, variant: 0, calls: this.runs, ns: this.runs * ns, cost: total }
    ));
  }
}

describe("bench --profile", () => {
  it("counts what ran between resume and pause, by op and kind, the largest first", () => {
    const decode = new FakeProgram([["add", "f32 [8]", 10], ["linear", "q4_0 [8, 8]", 50], [
      "linear",
      "q4_0 [8, 8]",
      30,
    ]]);
    const idle = new FakeProgram([["add", "f32 [8]", 7]]);
    const profiler = new Profiler(new Map([["decode", decode], ["prefill", idle]]));
    decode.runs = 5; // before: not ours
    for (let repetition = 0; repetition < 2; repetition++) {
      profiler.resume();
      decode.runs += 3;
      profiler.pause();
      decode.runs += 1; // between: not ours
    }
    const profile = profiler.result(600);
    assertEquals(profile.outside_ns, 600 - 6 * 90);
    assertEquals(profile.programs, [
      { name: "decode", commands: 3, arena_bytes: 3 << 20, arena_lower_bound_bytes: 2 << 20 },
    ]);
    assertEquals(profile.ops.map(({ op, kind, calls, time_ns }) => [op, kind, calls, time_ns]), [
      ["linear", "q4_0 [8, 8]", 12, 480],
      ["add", "f32 [8]", 6, 60],
    ]);
    const [linear] = profile.ops;
    assertEquals([linear.weight_bytes, linear.cache_bytes, linear.activation_bytes], [1200, 240, 36]);
    assertEquals(linear.operations, 12_000);
    assertAlmostEquals(linear.share, 0.8, 1e-12);
    assertAlmostEquals(linear.gb_per_s, 1476 / 480, 1e-12);
    assertAlmostEquals(linear.gops, 25, 1e-12);
    const lines = profileTable(profile, 2).split("\n");
    assertMatch(lines[0], /^\| op +\| kind +\| calls \| +ms \| +share \| GB\/s \| +GOPS \|$/);
    assertMatch(lines[2], /^\| linear +\| q4_0 \[8, 8\] +\| +6 \| +0\.000 \| +80\.0 % \| +3\.1 \| +25\.0 \|$/);
    assertMatch(lines[4], /^\| outside of ops \| +\| +\| +0\.000 \| +10\.0 % \| +\| +\|$/);
    assertMatch(lines[5], /^\| all +\| +\| +9 \|/);
    assertEquals(new Set(lines.map((line) => line.length)).size, 1);
  });

  it("tables are as wide as their widest cells", () => {
    assertEquals(
      markdownTable([{ name: "a" }, { name: "n", right: true }], [["x", "10000"], ["longer", "1"]]),
      "| a      |     n |\n| ------ | ----: |\n| x      | 10000 |\n| longer |     1 |",
    );
  });
});
