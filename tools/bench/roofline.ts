/** How near each op comes to what the machine can do at most. */
import { x86 } from "@mllm/backend-x86";
import { attentionI8TokensMin } from "@mllm/core";
import type { TestProfile } from "../../packages/apps/src/cli/bench_profile.ts";
import type { Peaks } from "./machine.ts";

/** Units that compute: int8 dot products, f32 multiply-adds, AMX tiles. */
export type Peak = "int8" | "f32" | "tiles_bf16" | "tiles_int8";

/** One kind of op, per token. */
export interface RooflineOp {
  op: string;
  kind: string;
  share: number;
  us_per_token: number;
  /** Weights, keys and values: what has to come from memory. */
  memory_bytes_per_token: number;
  operations_per_token: number;
  /** Operations per byte of everything that is touched, activations too. */
  intensity: number;
  gb_per_s: number;
  gops: number;
  /** The peak that its operations are held against. */
  peak: Peak;
  /** Least possible time over time taken: the larger of what its memory and what its operations need. */
  of_limit: number;
}

/** One test. */
export interface Roofline {
  test: string;
  tokens: number;
  us_per_token: number;
  memory_bytes_per_token: number;
  operations_per_token: number;
  /** Memory traffic of the test over its time, as a share of the read bandwidth. */
  of_bandwidth: number;
  /** Operations on quantised operands: the least time of the units that run them, as a share of the test's time. */
  of_int8_peak: number;
  /** Sum of the ops' least times over the time taken. */
  of_limit: number;
  ops: RooflineOp[];
}

const floats = /^(f32|f16|bf16) /;

/** The units of each op: quantised weights and, beside them, a prompt's attention are no floats by default. */
function peakOf(test: string, profile: TestProfile, peaks: Peaks): (op: string, kind: string) => Peak {
  const isQuantised = (op: string, kind: string) => (op === "linear" && !floats.test(kind)) || op === "linear_swiglu";
  const rows = Number(/^pp(\d+)/.exec(test)?.[1] ?? 0);
  const hasTiles = (peaks.tiles_bf16_gops ?? 0) > 0;
  const onTiles = hasTiles && rows >= x86.linearThreshold!.amx;
  const attends = rows >= attentionI8TokensMin && profile.ops.some(({ op, kind }) => isQuantised(op, kind));
  return (op, kind) => {
    if (isQuantised(op, kind)) return onTiles ? "tiles_bf16" : "int8";
    return op !== "attention" || !attends ? "f32" : hasTiles ? "tiles_int8" : "int8";
  };
}

/** @param tokens tokens that all repetitions together ran */
export function rooflineOf(test: string, profile: TestProfile, tokens: number, peaks: Peaks): Roofline {
  const rate: Record<Peak, number> = {
    int8: peaks.int8_gops || peaks.f32_gflops,
    f32: peaks.f32_gflops,
    tiles_bf16: peaks.tiles_bf16_gops ?? 0,
    tiles_int8: peaks.tiles_int8_gops ?? 0,
  };
  const units = peakOf(test, profile, peaks);
  let leastNs = 0;
  const ops = profile.ops.map((row): RooflineOp => {
    const memory = row.weight_bytes + row.cache_bytes;
    const peak = units(row.op, row.kind);
    const least = Math.max(memory / peaks.read_gb_per_s, rate[peak] > 0 ? row.operations / rate[peak] : 0);
    leastNs += least;
    return {
      op: row.op,
      kind: row.kind,
      share: row.share,
      us_per_token: row.time_ns / tokens / 1000,
      memory_bytes_per_token: memory / tokens,
      operations_per_token: row.operations / tokens,
      intensity: row.operations / (memory + row.activation_bytes),
      gb_per_s: row.gb_per_s,
      gops: row.gops,
      peak,
      of_limit: row.time_ns > 0 ? least / row.time_ns : 0,
    };
  });
  const sum = (value: (op: RooflineOp) => number) => ops.reduce((total, op) => total + value(op), 0);
  const nsPerToken = profile.wall_ns / tokens;
  const coded = sum(({ peak, operations_per_token }) => peak === "f32" ? 0 : operations_per_token / rate[peak]);
  const memory = sum((op) => op.memory_bytes_per_token);
  return {
    test,
    tokens,
    us_per_token: nsPerToken / 1000,
    memory_bytes_per_token: memory,
    operations_per_token: sum((op) => op.operations_per_token),
    of_bandwidth: memory / nsPerToken / peaks.read_gb_per_s,
    of_int8_peak: peaks.int8_gops > 0 ? coded / nsPerToken : 0,
    of_limit: leastNs / profile.wall_ns,
    ops,
  };
}
