/**
 * The x86 backend: CPU kernels for x86-64 at five ISA levels in one library; the best one is chosen when it is opened.
 *
 * @example
 * ```ts
 * import { openBackend } from "@mllm/core";
 * import { x86 } from "@mllm/backend-x86";
 *
 * using backend = await openBackend(x86, { threads: 2 });
 * ```
 * @module
 */
import { type BackendPlugin, MllmError } from "@mllm/core";
import { fileURLToPath } from "node:url";
import { kernelRows, linearThreshold, tileRows } from "./kernel_rows.ts";

const libraryNames: Partial<Record<typeof Deno.build.os, string>> = {
  linux: "libmllm_x86.so",
  darwin: "libmllm_x86.dylib",
  windows: "mllm_x86.dll",
};

function library(): Promise<string> {
  const name = libraryNames[Deno.build.os];
  if (name === undefined || Deno.build.arch !== "x86_64") {
    const here = `${Deno.build.arch} ${Deno.build.os}`;
    return Promise.reject(
      new MllmError("unsupported", `backend x86 needs an x86-64 CPU with Linux, macOS or Windows; this is ${here}`, {
        next: "Choose the backend of this machine's CPU",
      }),
    );
  }
  return Promise.resolve(fileURLToPath(new URL(`zig/zig-out/lib/${name}`, import.meta.url)));
}

/** The plugin: pass it to `openBackend` or register it in a `BackendRegistry`. */
export const x86: BackendPlugin = {
  name: "x86",
  description: "x86-64 CPUs: portable vectors, AVX2, AVX-VNNI, AVX-512 VNNI, AMX",
  levels: ["portable", "avx2", "avxvnni", "avx512vnni", "amx"],
  library,
  kernelRows,
  tileRows,
  linearThreshold,
};
