/** The ISA levels that tests run at: those of this CPU, and `amx` in software where a CPU lacks nothing but AMX. */
import { x86 } from "@mllm/backend-x86";
import { type BackendPlugin, type DeviceInfo, MllmError, probeBackend } from "@mllm/core";
import { repositoryRoot, zigBinary } from "../workspace.ts";

/** A level and the plugin to open it with. */
export interface TestedLevel {
  level: string;
  plugin: BackendPlugin;
}

const FOLDER = "packages/backend-x86/zig";
/** Not in zig-out: this library is for tests only, and what is in zig-out ships. */
const PREFIX = `${FOLDER}/.zig-cache/emulated`;

/** Lowest first. Builds the emulated variant of the library when it is needed (seconds, then cached). */
export async function testedLevels(): Promise<TestedLevel[]> {
  const device = await probeBackend(x86);
  if (!device.available) throw new MllmError("not_found", `the x86 backend is needed: ${device.reason}`);
  const levels: TestedLevel[] = device.levels.map((level) => ({ level, plugin: x86 }));
  if (lacksOnlyAmx(device)) levels.push({ level: "amx", plugin: await emulatedPlugin() });
  return levels;
}

/** Level amx, of this CPU or emulated; undefined where it can't run. */
export async function amxLevel(): Promise<TestedLevel | undefined> {
  return (await testedLevels()).find(({ level }) => level === "amx");
}

function lacksOnlyAmx({ levels, features }: DeviceInfo): boolean {
  const base = ["avx512vnni", "avx512bf16", "avx512vbmi", "avx512vbmi2"];
  return Deno.build.os === "linux" && !levels.includes("amx") && base.every((name) => features.includes(name));
}

async function emulatedPlugin(): Promise<BackendPlugin> {
  const cwd = repositoryRoot();
  // Called as the nx target `build` calls it, so that the objects it has compiled are found in the cache.
  const paths = ["--build-file", `${FOLDER}/build.zig`, "--prefix", PREFIX, "--cache-dir", `${FOLDER}/.zig-cache`];
  const command = new Deno.Command(zigBinary(cwd), { args: ["build", "emulated", ...paths], cwd, stdin: "null" });
  const { success, stderr } = await command.output();
  if (!success) throw new Error(new TextDecoder().decode(stderr).slice(0, 4000));
  return { ...x86, library: () => Promise.resolve(`${cwd}/${PREFIX}/lib/libmllm_x86_emulated.so`) };
}
