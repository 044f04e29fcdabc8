/** What the machine is and what it can do at most. */
import { repositoryRoot, zigBinary } from "../workspace.ts";
import { output } from "./process.ts";

/** The most that all threads together reach, measured (native/kernels/bench_peak.zig). */
export interface Peaks {
  level: string;
  threads: number;
  /** Integer operations per nanosecond: int8 dot products from registers; 0 where a level has none of its own. */
  int8_gops: number;
  /** Float operations per nanosecond: fused multiply-adds from registers. */
  f32_gflops: number;
  /** Bytes per nanosecond read from memory. */
  read_gb_per_s: number;
  /** Operations per nanosecond of AMX tiles on random bf16; 0 or absent where a level has none. */
  tiles_bf16_gops?: number;
  /** The same on int8. */
  tiles_int8_gops?: number;
}

/** What a figure has to be read with. */
export interface Machine {
  cpu: string;
  /** ISA levels that it runs, the best last. */
  levels: string[];
  features: string[];
  cores: number;
  memory_bytes: number;
  system: string;
  /** How the system sets the clock, where it tells. */
  governor: string | null;
  versions: Record<string, string>;
}

async function version(command: string, args: string[]): Promise<string> {
  return (await output(command, args, repositoryRoot()).catch(() => "none")).trim();
}

/** Measures the peaks; builds the program for it first when it is not built. */
export async function measurePeaks(level: string, threads: number): Promise<Peaks> {
  const root = repositoryRoot();
  const args = ["build", "peaks", `-Dlevel=${level}`, `-Dthreads=${threads}`];
  const text = await output(zigBinary(root), args, `${root}/packages/core/native`);
  return { level, threads, ...JSON.parse(text) };
}

/** What lies between two measurements of one level. */
export function meanPeaks(a: Peaks, b: Peaks): Peaks {
  return {
    ...a,
    int8_gops: (a.int8_gops + b.int8_gops) / 2,
    f32_gflops: (a.f32_gflops + b.f32_gflops) / 2,
    read_gb_per_s: (a.read_gb_per_s + b.read_gb_per_s) / 2,
    tiles_bf16_gops: ((a.tiles_bf16_gops ?? 0) + (b.tiles_bf16_gops ?? 0)) / 2,
    tiles_int8_gops: ((a.tiles_int8_gops ?? 0) + (b.tiles_int8_gops ?? 0)) / 2,
  };
}

/** Everything about this machine. */
export async function describeMachine(): Promise<Machine> {
  const root = repositoryRoot();
  const args = ["run", "-q", "--no-prompt", "-P=apps", "packages/apps/mllm.ts", "doctor", "--json"];
  const { backends } = JSON.parse(await output(Deno.execPath(), args, root));
  const cpu = backends.find((backend: { available: boolean }) => backend.available);
  if (cpu === undefined) throw new Error("no backend is available here: run `deno task mllm doctor`");
  const governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
  return {
    cpu: cpu.cpu,
    levels: cpu.levels,
    features: cpu.features,
    cores: cpu.cores,
    memory_bytes: cpu.memory_bytes,
    system: `${Deno.build.os} ${Deno.osRelease()}`,
    governor: await Deno.readTextFile(governor).then((text) => text.trim(), () => null),
    versions: {
      mllm: await version("git", ["rev-parse", "--short", "HEAD"]),
      deno: Deno.version.deno,
      node: await version("node", ["--version"]),
      python: await version("python3", ["--version"]),
      zig: await version(zigBinary(root), ["version"]),
    },
  };
}
