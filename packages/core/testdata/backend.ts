import { assertEquals } from "@std/assert";
import { it } from "@std/testing/bdd";
import { fileURLToPath } from "node:url";
import { type Backend, type BackendOptions, type BackendPlugin, openBackend, probeBackend } from "../src/backend.ts";
import { MllmError } from "../src/errors.ts";

const folder = Deno.build.arch === "aarch64" ? "backend-arm" : "backend-x86";
const name = Deno.build.arch === "aarch64" ? "arm" : "x86";
const file = { darwin: `libmllm_${name}.dylib`, windows: `mllm_${name}.dll` }[Deno.build.os as string] ??
  `libmllm_${name}.so`;

/** The CPU backend of this machine, for tests of core, which must not import a backend package. */
export const testPlugin: BackendPlugin = {
  name,
  description: "the CPU, for tests",
  levels: [],
  kernelRows: [],
  library: () => {
    const url = new URL(`../../${folder}/zig/zig-out/lib/${file}`, import.meta.url);
    return Promise.resolve(fileURLToPath(url));
  },
};

/** Opens it; two threads unless told. */
export function openTestBackend(options: BackendOptions = {}): Promise<Backend> {
  return openBackend(testPlugin, { threads: 2, ...options });
}

/** Declares tests that must leave no memory of the backend behind (an error in afterEach would not fail them). */
export function leakChecked(backend: () => Backend): (name: string, fn: () => void | Promise<void>) => void {
  return (name, fn) =>
    it(name, async () => {
      await fn();
      const { memoryInUse, liveAllocations } = backend();
      assertEquals([memoryInUse, liveAllocations], [0, 0], "memory was not freed");
    });
}

/** The levels of this machine, lowest first. */
export async function testLevels(): Promise<readonly string[]> {
  const { available, reason, levels } = await probeBackend(testPlugin);
  if (!available) throw new MllmError("not_found", `tests need the CPU backend: ${reason}`);
  return levels;
}
