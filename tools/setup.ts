/**
 * Makes a checkout ready to run: installs the npm packages and builds the native libraries, each only when something
 * changed since the last time. `deno task chat` and `deno task test` start with it; when nothing is to be done it only
 * looks at file times (some milliseconds). Works with Node's npm or, on a machine with Deno alone, with npm run by Deno.
 */
import { newestInput, repositoryRoot, zigBinary } from "./workspace.ts";

const NPM_PACKAGE = "npm:npm@11.6.0";
const LOCK_STAMP = "node_modules/.package-lock.json";

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
async function run(what: string, command: string, args: string[], env: Record<string, string> = {}): Promise<boolean> {
  let status: Deno.CommandStatus;
  try {
    const child = new Deno.Command(command, { args, cwd: root, env, stdin: "null", stdout: "piped", stderr: "piped" })
      .spawn();
    const chunks: Uint8Array[] = [];
    const collect = async (stream: ReadableStream<Uint8Array>) => {
      for await (const chunk of stream) chunks.push(chunk);
    };
    [status] = await Promise.all([child.status, collect(child.stdout), collect(child.stderr)]);
    if (!status.success) {
      for (const chunk of chunks) Deno.stderr.writeSync(chunk);
      console.error(`setup: ${what} failed (${command}, exit code ${status.code}); its output is above`);
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
  const npm = Deno.build.os === "windows" ? "npm.cmd" : "npm";
  const installed = await run("npm install", npm, args) ||
    await run("npm install", Deno.execPath(), [
      "run",
      "-A",
      "--no-config",
      "--node-modules-dir=none",
      NPM_PACKAGE,
      ...args,
    ]);
  if (!installed) throw new Error("neither npm nor deno could be started");
  const now = new Date(); // npm leaves the stamp alone when there was nothing to do
  await Deno.utime(`${root}/${LOCK_STAMP}`, now, now);
}

async function buildNative(): Promise<void> {
  const stamp = ".nx/mllm-built";
  if (modifiedMs(stamp) >= newestInput(root)) return;
  zigBinary(root); // fails early with a clear text when this platform has no Zig package
  console.error("setup: building the kernels (once after each change) …");
  const delimiter = Deno.build.os === "windows" ? ";" : ":";
  const path = `${Deno.execPath().replace(/[\\/][^\\/]+$/, "")}${delimiter}${Deno.env.get("PATH") ?? ""}`;
  const env = { NX_DAEMON: "false", NX_TUI: "false", NX_NO_CLOUD: "true", PATH: path };
  const args = ["node_modules/nx/dist/bin/nx.js", "run-many", "--target=build", "--outputStyle=stream"];
  const built = await run("the build", "node", args, env) ||
    await run("the build", Deno.execPath(), ["run", "-A", ...args], env);
  if (!built) throw new Error("neither node nor deno could be started");
  Deno.mkdirSync(`${root}/.nx`, { recursive: true });
  Deno.writeTextFileSync(`${root}/${stamp}`, "");
}

if (import.meta.main) {
  await installPackages();
  await buildNative();
}
