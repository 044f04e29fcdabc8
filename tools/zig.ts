/** Runs the Zig compiler of node_modules with the given arguments: what the nx targets call. */
import { command, repositoryRoot, zigBinary } from "./workspace.ts";

if (import.meta.main) {
  const child = command(zigBinary(repositoryRoot()), { args: Deno.args }).spawn();
  Deno.exit((await child.status).code);
}
