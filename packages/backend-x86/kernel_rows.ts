/**
 * The kernel selector's built-in rows for x86 CPUs.
 *
 * "All threads" means as many as there is work for: how much that is, `native/runtime/executor.zig` of core says, for all
 * ops. No result depends on it.
 * @module
 */
import type { DType, KernelRow } from "@mllm/core";

/** Types that weights in blocks have once packed. */
const quantised: readonly DType[] = ["q8_0", "q4_0", "q5_0", "q4_k", "q6_k", "q8_g16"];

/** First row that fits decides. */
export const kernelRows: readonly KernelRow[] = [
  {
    op: "linear",
    phase: "decode",
    variant: 1,
    threads: 0,
    reason: "GEMV: one row is bound by reading the packed weights: all threads read their panels",
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
