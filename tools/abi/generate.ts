/**
 * Generates the bindings from the Zig definition of the ABI: `deno task abi`.
 *
 * `packages/core/native/generate.zig` does the work by reflection; this module runs it once per file and puts the
 * results where they belong.
 */

import { MllmError } from "../../packages/core/src/errors.ts";
import { command, repositoryRoot, zigBinary } from "../workspace.ts";

const root = repositoryRoot();

/** Generated files (relative to the repository) and the argument of the generator that makes each. */
export const generatedFiles = {
  "packages/core/src/native/abi.ts": "ts",
  "packages/core/native/mllm.h": "h",
  "docs/ops.md": "md",
} as const;

/** Runs zig with these arguments in the repository and returns its stdout; throws with its stderr. */
export async function zig(args: string[]): Promise<string> {
  const { success, stdout, stderr } = await command(zigBinary(root), { args, cwd: root }).output();
  if (!success) throw new MllmError("internal", `zig ${args[0]} failed: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** A cache of its own: in the common one Zig finds the same generate.zig of another checkout, with that one's abi.zig. */
const cache = [
  "--cache-dir",
  "packages/core/native/.zig-cache",
  "--global-cache-dir",
  "packages/core/native/.zig-cache",
];

/** The text of every generated file, by path. */
export async function generate(): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const [path, kind] of Object.entries(generatedFiles)) {
    files[path] = await zig(["run", ...cache, "packages/core/native/generate.zig", "--", kind]);
  }
  return files;
}

if (import.meta.main) {
  for (const [path, text] of Object.entries(await generate())) {
    if (await Deno.readTextFile(`${root}/${path}`) === text) continue; // a fresh file time would build the kernels anew
    await Deno.writeTextFile(`${root}/${path}`, text);
    console.log(path);
  }
}
