/**
 * The command line: `deno task mllm`.
 *
 * @module
 */
import { mllmMain } from "./src/cli/main.ts";
import { denoHost, enterStartFolder } from "./src/host.ts";
import { openProgram } from "./src/open_engine.ts";

if (import.meta.main) {
  const host = denoHost();
  enterStartFolder(host.env);
  Deno.exit(await mllmMain(Deno.args, host, openProgram(host, "deno task mllm chat")));
}
