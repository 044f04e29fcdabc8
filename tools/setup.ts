/**
 * Makes a checkout ready to run: installs the npm packages and builds the native libraries, each only when something
 * changed since the last time. `deno task chat` and `deno task test` start with it; when nothing is to be done it only
 * looks at file times (some milliseconds). Works with Node's npm or, on a machine with Deno alone, with npm run by Deno.
 */
import { command, newestInput, NPM, repositoryRoot, zigBinary } from "./workspace.ts";

const NPM_PACKAGE = "npm:npm@11.6.0";
const LOCK_STAMP = "node_modules/.package-lock.json";
const NOTHING_FOUND = "neither Node nor Deno is on the PATH: add the folder of one of them to it and run this again";

const root = repositoryRoot();

function modifiedMs(path: string): number {
  try {
    return Deno.statSync(`${root}/${path}`).mtime?.getTime() ?? 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/** Runs a command with its output on stderr; answers whether it exists, exits when it fails. */
async function run(what: string, program: string, args: string[], env: Record<string, string> = {}): Promise<boolean> {
  let status: Deno.CommandStatus;
  try {
    const child = command(program, { args, cwd: root, env, stdout: "piped", stderr: "piped" }).spawn();
    const chunks: Uint8Array[] = [];
    const collect = async (stream: ReadableStream<Uint8Array>) => {
      for await (const chunk of stream) chunks.push(chunk);
    };
    [status] = await Promise.all([child.status, collect(child.stdout), collect(child.stderr)]);
    if (!status.success) {
      for (const chunk of chunks) Deno.stderr.writeSync(chunk);
      console.error(`setup: ${what} failed (${program}, exit code ${status.code}); its output is above`);
      Deno.exit(1);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  return true;
}

async function installPackages(): Promise<void> {
  const wanted = Math.max(modifiedMs("package.json"), modifiedMs("package-lock.json"));
  if (modifiedMs(LOCK_STAMP) >= wanted) return;
  console.error("setup: installing npm packages (once, about half a minute) …");
  // Not `npm ci`: it refuses lock files that lack other systems' packages. --no-save leaves the lock file alone.
  const args = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const installed = await run("npm install", NPM, args) ||
    await run("npm install", "deno", ["run", "-A", "--no-config", "--node-modules-dir=none", NPM_PACKAGE, ...args]);
  if (!installed) throw new Error(NOTHING_FOUND);
  const now = new Date(); // npm leaves the stamp alone when there was nothing to do
  await Deno.utime(`${root}/${LOCK_STAMP}`, now, now);
}

async function buildNative(): Promise<void> {
  const stamp = ".nx/mllm-built";
  if (modifiedMs(stamp) >= newestInput(root)) return;
  zigBinary(root); // fails early with a clear text when this platform has no Zig package
  console.error("setup: building the kernels (once after each change) …");
  const delimiter = Deno.build.os === "windows" ? ";" : ":";
  // The nx targets start `deno`: this one, where none is on the PATH.
  const path = `${Deno.env.get("PATH") ?? ""}${delimiter}${Deno.execPath().replace(/[\\/][^\\/]+$/, "")}`;
  const env = { NX_DAEMON: "false", NX_TUI: "false", NX_NO_CLOUD: "true", PATH: path };
  const args = ["node_modules/nx/dist/bin/nx.js", "run-many", "--target=build", "--outputStyle=stream"];
  const built = await run("the build", "node", args, env) ||
    await run("the build", "deno", ["run", "-A", ...args], env);
  if (!built) throw new Error(NOTHING_FOUND);
  Deno.mkdirSync(`${root}/.nx`, { recursive: true });
  Deno.writeTextFileSync(`${root}/${stamp}`, "");
}

if (import.meta.main) {
  try {
    await installPackages();
    await buildNative();
  } catch (error) {
    console.error(`setup: ${(error as Error).message}`);
    Deno.exit(1);
  }
}
