import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Random } from "../random_model/random.ts";
import { fuzz } from "./fuzz.ts";
import { makeInput } from "./cases.ts";
import { targets } from "./targets.ts";

describe("fuzz", () => {
  it("2000 mutations end in success or MllmError (deno task fuzz runs more)", async () => {
    const keep = Deno.makeTempDirSync({ prefix: "mllm-fuzz-failures-" });
    const failures = await fuzz({ seed: 20_261_123, count: 2000, keep });
    assertEquals(
      failures.map(({ parser, case: index, what, path }) => `${parser} case ${index}: ${what} (${path})`),
      [],
    );
    Deno.removeSync(keep, { recursive: true });
  });

  it("makes the same input from the same seed", () => {
    for (const target of targets) assertEquals(makeInput(target, 7, 3), makeInput(target, 7, 3));
    assertEquals(new Random(1, 2).u32() === new Random(1, 3).u32(), false);
  });
});
