/** Runs the Zig compiler of node_modules with the given arguments: what the nx targets call. */
import { repositoryRoot, zigBinary } from "./workspace.ts";

if (import.meta.main) {
  const child = new Deno.Command(zigBinary(repositoryRoot()), { args: Deno.args, stdin: "null" }).spawn();
  Deno.exit((await child.status).code);
}
