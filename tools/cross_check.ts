/**
 * Checks that the native code compiles and links for every supported system: `deno task check:cross`.
 * Unoptimised, which is the quickest: x86-64 with all levels, arm64 with the runtime and the portable kernels; nothing
 * is installed or run.
 */
import { command, repositoryRoot, zigBinary } from "./workspace.ts";

if (import.meta.main) {
  const root = repositoryRoot();
  const cwd = `${root}/packages/backend-x86/zig`;
  const args = ["build", "check-cross", "-Doptimize=Debug", "--summary", "all", ...Deno.args];
  const { success, code } = await command(zigBinary(root), { args, cwd }).spawn().status;
  if (!success) Deno.exit(code);
}
