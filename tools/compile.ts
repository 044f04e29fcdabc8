/**
 * Builds `dist/mllm-chat`: the chat as one file, with the native library and the demonstration model inside.
 *
 * `deno compile` puts Deno's own runtime (`denort`) into the file and downloads it the first time. Where that is
 * impossible this says so and ends with code 1; `DENORT_BIN=PATH` names a runtime that is here already.
 */
import { command, repositoryRoot } from "./workspace.ts";

/** What goes into the binary: the folder of the native library, and the model. */
const INCLUDED = ["packages/backend-x86/zig/zig-out/lib", "packages/models/embedded/model.gguf"];
const MODEL = "packages/models/embedded/model.gguf";

function fail(message: string): never {
  console.error(`compile: ${message}`);
  Deno.exit(1);
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Why `deno compile` failed: in the user's words where the runtime is missing, else in its own. */
export function explainFailure(output: string): string {
  if (/error sending request|Setting up base binary/i.test(output)) {
    return "deno compile needs Deno's runtime `denort`, and it can't be had from here. On a machine with access run " +
      "this task once, or name a runtime that is here already: DENORT_BIN=PATH deno task compile";
  }
  return `deno compile failed:\n${output.trim()}`;
}

/** The arguments of `deno compile`. */
export function compileArguments(root: string, output: string): string[] {
  const included = INCLUDED.filter((path) => exists(`${root}/${path}`));
  return [
    "compile",
    "--no-prompt",
    "-P=apps", // what the task `chat` permits; see deno.json
    ...included.flatMap((path) => ["--include", path]),
    "--output",
    output,
    "packages/apps/chat.ts",
  ];
}

async function main(): Promise<void> {
  const root = repositoryRoot();
  if (!exists(`${root}/${MODEL}`)) fail(`there is no demonstration model at ${MODEL}`);
  const output = `${root}/dist/mllm-chat`;
  await Deno.mkdir(`${root}/dist`, { recursive: true });
  const args = compileArguments(root, output);
  const { success, stderr } = await command("deno", { args, cwd: root, stdout: "inherit" }).output();
  if (!success) fail(explainFailure(new TextDecoder().decode(stderr)));
  console.error(`compile: dist/mllm-chat is ready`);
}

if (import.meta.main) await main();
