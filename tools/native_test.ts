/** Runs the unit tests of the native code: kernels at the best ISA level of this CPU, runtime, dispatcher. */
import { x86 } from "@mllm/backend-x86";
import { probeBackend } from "@mllm/core";
import { assert } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
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
    const { level } = await probeBackend(x86);
    await zigBuild("packages/core/native", "test", `-Dlevel=${level}`);
  });

  it("runtime and dispatcher", async () => {
    await zigBuild("packages/backend-x86/zig", "test-runtime", "test-root");
  });
});
