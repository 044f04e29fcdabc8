/** Runs the unit tests of the native code: kernels at the best ISA levels that can run here, runtime, dispatcher. */
import { assert } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { testedLevels } from "./testing/x86_levels.ts";
import { repositoryRoot, zigBinary } from "./workspace.ts";

const root = repositoryRoot();

async function zigBuild(folder: string, ...steps: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(zigBinary(root), {
    args: ["build", ...steps],
    cwd: `${root}/${folder}`,
    stdin: "null",
  }).output();
  assert(success, new TextDecoder().decode(stderr).slice(0, 4000));
}

describe("native unit tests", () => {
  it("kernels against their scalar oracles", async () => {
    // The best level that has all kernels, and amx, which has but its own.
    const levels = (await testedLevels()).map(({ level }) => level);
    const isOver = levels.at(-1) === "amx";
    for (const level of isOver ? levels.slice(-2) : levels.slice(-1)) {
      await zigBuild("packages/core/native", "test", `-Dlevel=${level}`);
    }
  });

  it("runtime and dispatcher", async () => {
    await zigBuild("packages/backend-x86/zig", "test-runtime", "test-root");
  });
});
