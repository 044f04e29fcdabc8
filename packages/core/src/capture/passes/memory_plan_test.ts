import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Random } from "../../conformance/case.ts";
import { type Lifetime, planMemory } from "./memory_plan.ts";

function overlaps(lifetimes: readonly Lifetime[], offsets: readonly number[]): boolean {
  const align = (bytes: number) => Math.ceil(bytes / 64) * 64;
  return lifetimes.some((a, i) =>
    lifetimes.some((b, j) =>
      i < j && a.first <= b.last && b.first <= a.last && offsets[i] < offsets[j] + align(b.bytes) &&
      offsets[j] < offsets[i] + align(a.bytes)
    )
  );
}

describe("planMemory", () => {
  it("never lets live buffers overlap and stays near the lower bound", () => {
    const random = new Random(1);
    let ratio = 0;
    for (let round = 0; round < 300; round++) {
      const lifetimes = Array.from({ length: 1 + random.int(40) }, () => {
        const first = random.int(60);
        return { bytes: 1 + random.int(5000), first, last: first + random.int(random.int(10) === 0 ? 60 : 6) };
      });
      const plan = planMemory(lifetimes);
      assert(!overlaps(lifetimes, plan.offsets));
      assert(plan.offsets.every((offset, i) => offset % 64 === 0 && offset + lifetimes[i].bytes <= plan.arenaBytes));
      assert(plan.arenaBytes >= plan.lowerBoundBytes);
      ratio = Math.max(ratio, plan.arenaBytes / plan.lowerBoundBytes);
    }
    assert(ratio < 1.5, `worst arena is ${ratio} of its lower bound`);
  });

  it("reaches the bound for a chain", () => {
    const chain = Array.from({ length: 20 }, (_, i) => ({ bytes: 64 * (1 + i % 2), first: i, last: i + 1 }));
    const plan = planMemory(chain);
    assertEquals(plan.arenaBytes, plan.lowerBoundBytes);
    assertEquals(planMemory([]), { offsets: [], arenaBytes: 0, lowerBoundBytes: 0 });
  });
});
