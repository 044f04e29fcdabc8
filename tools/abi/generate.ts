/**
 * Generates the bindings from the Zig definition of the ABI: `deno task abi`.
 *
 * `packages/core/native/generate.zig` does the work by reflection; this module compiles it, runs it once per file and
 * puts the results where they belong.
 */

import { MllmError } from "../../packages/core/src/errors.ts";
import { repositoryRoot, zigBinary } from "../workspace.ts";

const root = repositoryRoot();

/** Generated files (relative to the repository) and the argument of the generator that makes each. */
export const generatedFiles = {
  "packages/core/src/native/abi.ts": "ts",
  "packages/core/native/mllm.h": "h",
  "docs/ops.md": "md",
} as const;

/** Runs zig with these arguments in the repository; throws with its stderr. */
export async function zig(args: string[]): Promise<void> {
  const command = new Deno.Command(zigBinary(root), { args, cwd: root, stdout: "null", stderr: "piped" });
  const { success, stderr } = await command.output();
  if (!success) throw new MllmError("internal", `zig ${args[0]} failed: ${new TextDecoder().decode(stderr)}`);
}

/** The text of every generated file, by path. */
export async function generate(): Promise<Record<string, string>> {
  const folder = await Deno.makeTempDir({ prefix: "mllm-abi-" });
  try {
    const program = `${folder}/generate`;
    await zig(["build-exe", "packages/core/native/generate.zig", `-femit-bin=${program}`]);
    const files: Record<string, string> = {};
    for (const [path, kind] of Object.entries(generatedFiles)) {
      const { success, stdout, stderr } = await new Deno.Command(program, { args: [kind] }).output();
      if (!success) throw new MllmError("internal", `generate ${kind} failed: ${new TextDecoder().decode(stderr)}`);
      files[path] = new TextDecoder().decode(stdout);
    }
    return files;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) {
  for (const [path, text] of Object.entries(await generate())) {
    await Deno.writeTextFile(`${root}/${path}`, text);
    console.log(path);
  }
}
