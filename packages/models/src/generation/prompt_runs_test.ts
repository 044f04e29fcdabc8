import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals } from "@std/assert";
import { firstToRun, type RunLimits, runsOf } from "./prompt_runs.ts";

/** Lengths of the runs of a prompt. */
function runs(total: number, limits: RunLimits): number[] {
  const all = [...runsOf(total, limits)];
  assertEquals(all.map(([start]) => start), [0, ...all.map(([, end]) => end)].slice(0, -1));
  assertEquals(all.at(-1)![1], total);
  return all.map(([start, end]) => end - start);
}

describe("runs of a prompt", () => {
  const i8 = (chunk: number): RunLimits => ({ chunk, thresholds: [32] });
  const f32: RunLimits = { chunk: 512, thresholds: [] };
  const tiles = (chunk: number): RunLimits => ({ chunk, thresholds: [32, 64] });

  it("leave no short rest", () => {
    assertEquals(runs(528, i8(512)), [496, 32]);
    assertEquals(runs(1024, i8(512)), [512, 512]);
    assertEquals(runs(1025, i8(512)), [512, 481, 32]);
    assertEquals(runs(544, i8(512)), [512, 32]);
    assertEquals(runs(20, i8(512)), [20]);
    assertEquals(runs(70, i8(64)), [38, 32]);
    assertEquals(runs(65, i8(63)), [33, 32]);
    assertEquals(runs(443, i8(48)), [48, 48, 48, 48, 48, 48, 48, 43, 32, 32]);
    assertEquals(runs(128, i8(32)), [32, 32, 32, 32]);
    assertEquals(runs(528, f32), [512, 16]);
    for (let total = 32; total < 500; total++) {
      for (const chunk of [63, 64, 100]) assert(runs(total, i8(chunk)).every((run) => run >= 32 && run <= chunk));
      const fits = total >= 32 * Math.ceil(total / 40);
      assertEquals(Math.min(...runs(total, i8(40))) >= 32, fits, `${total}`);
    }
  });

  it("are as long as they may be where a chunk is too short for two", () => {
    assertEquals(runs(61, i8(60)), [60, 1]);
    assertEquals(runs(40, i8(33)), [33, 7]);
    assertEquals(runs(9, i8(4)), [4, 4, 1]);
  });

  it("reach the highest threshold that they can", () => {
    assertEquals(runs(528, tiles(512)), [464, 64]);
    assertEquals(runs(129, tiles(128)), [65, 64]);
    assertEquals(runs(129, tiles(100)), [65, 64]);
    assertEquals(runs(101, tiles(100)), [69, 32], "two of 64 are more");
    assertEquals(runs(70, tiles(63)), [38, 32], "the chunk is shorter");
    assertEquals(firstToRun(90, 100, tiles(512)), 36);
    assertEquals(firstToRun(40, 48, tiles(512)), 0);
  });

  it("begin early enough behind what is cached", () => {
    assertEquals(firstToRun(47, 48, i8(512)), 16);
    assertEquals(firstToRun(48, 48, i8(512)), 16);
    assertEquals(firstToRun(5, 48, i8(512)), 5);
    assertEquals(firstToRun(20, 20, i8(512)), 0);
    assertEquals(firstToRun(20, 20, i8(31)), 19);
    assertEquals(firstToRun(50, 100, i8(48)), 36);
    assertEquals(firstToRun(61, 61, i8(60)), 60);
    for (let cached = 0; cached <= 443; cached++) {
      const first = firstToRun(cached, 443, i8(48));
      assert(first <= cached && runs(443 - first, i8(48)).every((run) => run >= 32), `${cached}`);
    }
    assertEquals(firstToRun(48, 48, i8(16)), 47);
    assertEquals(firstToRun(48, 48, f32), 47);
  });
});
