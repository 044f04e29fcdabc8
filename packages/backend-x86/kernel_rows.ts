/**
 * The kernel selector's built-in rows for x86 CPUs.
 *
 * "All threads" means as many as there is work for: how much that is, `native/runtime/executor.zig` of core says, for all
 * ops. No result depends on it. Rows for named CPUs come first; what they say of CPUs that we do not have is derived from
 * the makers' optimisation guides and from trials of single kernels, and says so.
 * @module
 */
import { type DType, encodeLinearVariant, type KernelRow, type LinearVariant } from "@mllm/core";

/** `tile_sizes` of core's native/kernels/linear_i8.zig, by level; beside AMX's tiles, level amx has those of avx512vnni. */
export const tileRows: Readonly<Record<string, readonly number[]>> = {
  portable: [2],
  avx2: [2, 3, 4],
  avxvnni: [2, 3],
  avx512vnni: [4, 6, 8],
  amx: [4, 6, 8],
};

/** `rows_min` of core's native/kernels/linear_amx.zig. */
export const linearThreshold: Readonly<Record<string, number>> = { amx: 64 };

/** Types that weights in blocks have once packed. */
const quantised: readonly DType[] = ["q8_0", "q4_0", "q5_0", "q4_k", "q6_k", "q8_g16"];

/** A row of `linear` with int8 activations for some CPUs at the level that they run. */
function int8Linear(
  cpu: readonly string[],
  level: string,
  phase: "decode" | "prefill",
  variant: LinearVariant,
  reason: string,
): KernelRow {
  return {
    op: "linear",
    dtypes: quantised,
    x: ["q8a"],
    cpu,
    level,
    phase,
    variant: encodeLinearVariant(variant),
    threads: 0,
    reason,
  };
}

/** The last one stands for those whose hypervisor gives another signature. */
const amxServers = ["sapphire-rapids", "emerald-rapids", "granite-rapids", "amx-server"];
const hybrids = ["alder-lake", "raptor-lake"];

const namedCpus: readonly KernelRow[] = [
  int8Linear(
    ["zen3"],
    "avx2",
    "prefill",
    { tileRows: 4 },
    "GEMM in tiles of 4 rows by 2 vectors: their 8 sums leave half of the 16 registers to weights and products, and a " +
      "vector of weights that is loaded serves 4 rows (derived, not measured here)",
  ),
  int8Linear(
    ["zen5"],
    "avx512vnni",
    "prefill",
    { tileRows: 6 },
    "GEMM in tiles of 6 rows by two panels: 512-bit units do as many dots as loads in a cycle, so what is loaded has to " +
      "serve many dots (derived, not measured here)",
  ),
  ...["amx", "avx512vnni", "avxvnni", "avx2"].map((level) =>
    int8Linear(
      amxServers,
      level,
      "decode",
      { mode: "gemv", prefetch: 3 },
      "GEMV that asks for weights 1.5 KiB ahead, of four panels side by side: on an AMX server two threads read Q4_0 at " +
        "29 to 31 GB/s then (level amx), beside plain reading's 33; without asking at 19 to 21. From 3.5 KiB ahead a model " +
        "decoded 1 to 2 % slower, with two panels as fast (other levels and types: derived)",
    )
  ),
  int8Linear(
    amxServers,
    "amx",
    "prefill",
    { tileRows: 6 },
    "from 64 rows on GEMM in bf16 on AMX tiles, on such a server at 1.3 TOPS a core beside 0.5 of VNNI; with fewer rows that " +
      "of VNNI, in tiles of 6 rows by two panels",
  ),
  int8Linear(
    [...amxServers, "ice-lake-x", "ice-lake", "tiger-lake", "rocket-lake", "cascade-lake", "cooper-lake"],
    "avx512vnni",
    "prefill",
    { tileRows: 6 },
    "GEMM in tiles of 6 rows by two panels: on an AMX server 1.1 to 1.4 times as fast as 8 rows by one, for two panels share " +
      "what is loaded of x (derived for the others, not measured)",
  ),
  int8Linear(
    [...amxServers, "haswell", "broadwell", "skylake", "skylake-x"],
    "avx2",
    "prefill",
    { tileRows: 3 },
    "GEMM in tiles of 3 rows by 2 vectors, whose sums stay in registers: on an AMX server as fast as 4 rows in Q4_0, 1.1 to " +
      "1.2 times in Q4_K and Q6_K (derived for the others, not measured)",
  ),
  int8Linear(
    hybrids,
    "avxvnni",
    "decode",
    { mode: "gemv" },
    "GEMV in runs of panels that get shorter, from half of a thread's share on: so an E-core that reads at half of the " +
      "mean speed still ends with the P-cores (derived, not measured here)",
  ),
  int8Linear(
    hybrids,
    "avxvnni",
    "prefill",
    { tileRows: 3 },
    "GEMM in tiles of 3 rows by 2 vectors, whose sums stay in registers: at this level of an AMX server 1.2 to 1.5 times as " +
      "fast as 4 rows; tasks are many and small, so E-cores take fewer of them (derived for these CPUs)",
  ),
];

/** First row that fits decides. */
export const kernelRows: readonly KernelRow[] = [
  ...namedCpus,
  {
    op: "linear",
    phase: "decode",
    variant: 1,
    threads: 0,
    reason:
      "GEMV: one row is bound by reading the packed weights: all threads read their panels; the CPU itself sees what comes " +
      "next, and on Zen 4 asking for it made a thread a fifth slower",
  },
  {
    op: "linear",
    level: "amx",
    dtypes: quantised,
    variant: 0,
    threads: 0,
    reason: "GEMM; from 64 rows of int8 activations on in bf16 on AMX tiles, with fewer as at avx512vnni, bit for bit",
  },
  {
    op: "linear",
    variant: 0,
    threads: 0,
    reason: "GEMM from a few rows on, bound by arithmetic: register tiles over the same panels on all threads",
  },
  {
    op: "attention",
    level: "amx",
    phase: "prefill",
    variant: 0,
    threads: 0,
    reason: "runs of 32 tokens and more in int8 on AMX tiles, all threads take tasks of one head",
  },
  {
    op: "attention",
    variant: 0,
    threads: 0,
    reason: "heads and query rows are independent: all threads take tasks of one head",
  },
  {
    op: "pack_weight",
    variant: 0,
    threads: 0,
    reason: "panels are independent: all threads",
  },
  { op: "*", variant: 0, threads: 0, reason: "rows are independent: all threads" },
];
