/**
 * The chat: `deno task chat`.
 *
 * @module
 */
import { chatMain } from "./src/chat/main.ts";
import { denoHost, enterStartFolder } from "./src/host.ts";
import { openProgram } from "./src/open_engine.ts";

if (import.meta.main) {
  const host = denoHost();
  enterStartFolder(host.env);
  const command = Deno.build.standalone ? "mllm-chat" : "deno task chat";
  Deno.exit(await chatMain(Deno.args, host, openProgram(host, command)));
}
