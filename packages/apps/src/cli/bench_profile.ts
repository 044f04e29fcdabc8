/** The per-op profile of a benchmark: what each kind of op costs, against what it has to touch and to compute. */
import { addCosts, formatMiB, noCost, type OpCost, totalBytes } from "@mllm/core";
import type { CapturedProgram } from "../engine.ts";
import { markdownTable } from "../markdown_table.ts";

/** All ops of one kind in all repetitions of a test. Field names as in llama-bench's JSON: lower case, unit last. */
export interface OpProfile {
  op: string;
  /** Type and shape of the operand that decides the cost. */
  kind: string;
  calls: number;
  time_ns: number;
  /** Of the test's wall time. */
  share: number;
  weight_bytes: number;
  cache_bytes: number;
  activation_bytes: number;
  operations: number;
  gb_per_s: number;
  gops: number;
}

/** A captured program that took part in a test. */
export interface ProgramProfile {
  name: string;
  commands: number;
  arena_bytes: number;
  /** The most bytes of temporaries that live at one time: no arena could be smaller. */
  arena_lower_bound_bytes: number;
}

/** What `--profile` adds to a row of the benchmark. */
export interface TestProfile {
  /** Wall time of all repetitions. */
  wall_ns: number;
  /** Wall time that no op accounts for: calls into native code and back, waking threads, JavaScript. */
  outside_ns: number;
  programs: ProgramProfile[];
  /** The largest share first. */
  ops: OpProfile[];
}

interface Sum {
  calls: number;
  ns: number;
  cost: OpCost;
}

type Snapshot = Map<string, Sum & { op: string; kind: string; program: string }>;

/** Sums of the profile so far; the first call starts the measuring. */
function snapshot(programs: ReadonlyMap<string, CapturedProgram>): Snapshot {
  const sums: Snapshot = new Map();
  for (const [program, captured] of programs) {
    for (const { op, kind, calls, ns, cost } of captured.profile()) {
      const key = `${program}\n${op}\n${kind}`;
      const sum = sums.get(key) ?? { op, kind, program, calls: 0, ns: 0, cost: noCost };
      sums.set(key, { ...sum, calls: sum.calls + calls, ns: sum.ns + ns, cost: addCosts(sum.cost, cost) });
    }
  }
  return sums;
}

const minus = (a: OpCost, b: OpCost): OpCost => ({
  weightBytes: a.weightBytes - b.weightBytes,
  cacheBytes: a.cacheBytes - b.cacheBytes,
  activationBytes: a.activationBytes - b.activationBytes,
  operations: a.operations - b.operations,
});

/** Collects what programs do between `resume` and `pause`. */
export class Profiler {
  readonly #programs: ReadonlyMap<string, CapturedProgram>;
  readonly #used = new Set<string>();
  readonly #sums = new Map<string, Sum & { op: string; kind: string }>();
  #start: Snapshot = new Map();

  constructor(programs: ReadonlyMap<string, CapturedProgram>) {
    this.#programs = programs;
  }

  resume(): void {
    this.#start = snapshot(this.#programs);
  }

  pause(): void {
    for (const [key, { op, kind, program, calls, ns, cost }] of snapshot(this.#programs)) {
      const before = this.#start.get(key) ?? { calls: 0, ns: 0, cost: noCost };
      if (calls === before.calls) continue;
      this.#used.add(program);
      const name = `${op}\n${kind}`;
      const sum = this.#sums.get(name) ?? { op, kind, calls: 0, ns: 0, cost: noCost };
      this.#sums.set(name, {
        ...sum,
        calls: sum.calls + calls - before.calls,
        ns: sum.ns + ns - before.ns,
        cost: addCosts(sum.cost, minus(cost, before.cost)),
      });
    }
  }

  /** @param wallNs what a clock outside measured over the same time */
  result(wallNs: number): TestProfile {
    const ops = [...this.#sums.values()].sort((a, b) => b.ns - a.ns);
    return {
      wall_ns: wallNs,
      outside_ns: Math.max(0, wallNs - ops.reduce((sum, { ns }) => sum + ns, 0)),
      programs: [...this.#programs].filter(([name]) => this.#used.has(name)).map(([name, program]) =>
        describeProgram(name, program)
      ),
      ops: ops.map(({ op, kind, calls, ns, cost }) => ({
        op,
        kind,
        calls,
        time_ns: ns,
        share: ns / wallNs,
        weight_bytes: cost.weightBytes,
        cache_bytes: cost.cacheBytes,
        activation_bytes: cost.activationBytes,
        operations: cost.operations,
        gb_per_s: perNanosecond(totalBytes(cost), ns),
        gops: perNanosecond(cost.operations, ns),
      })),
    };
  }
}

/** Per nanosecond is billions per second; nothing in no time is 0. */
const perNanosecond = (count: number, ns: number): number => ns > 0 ? count / ns : 0;

export function describeProgram(name: string, program: CapturedProgram): ProgramProfile {
  return {
    name,
    commands: program.commands.length,
    arena_bytes: program.arenaBytes,
    arena_lower_bound_bytes: program.lowerBoundBytes,
  };
}

/** `prefill: 397 commands, arena 12.0 MiB (at least 11.8 MiB live at one time)`. */
export function programText({ name, commands, arena_bytes, arena_lower_bound_bytes }: ProgramProfile): string {
  const [arena, least] = [arena_bytes, arena_lower_bound_bytes].map((bytes) => formatMiB(bytes, 2));
  return `${name}: ${commands} commands, arena ${arena} (at least ${least} live at one time)`;
}

const COLUMNS = [
  { name: "op" },
  { name: "kind" },
  { name: "calls", right: true },
  { name: "ms", right: true },
  { name: "share", right: true },
  { name: "GB/s", right: true },
  { name: "GOPS", right: true },
];

/** The table of one test; calls and times are those of one repetition. */
export function profileTable(profile: TestProfile, repetitions: number): string {
  const row = (op: string, kind: string, calls: number, ns: number, gb: number, gops: number) => [
    op,
    kind,
    calls === 0 ? "" : String(calls / repetitions),
    (ns / repetitions / 1e6).toFixed(3),
    `${(ns / profile.wall_ns * 100).toFixed(1)} %`,
    gb === 0 ? "" : gb.toFixed(1),
    gops === 0 ? "" : gops.toFixed(1),
  ];
  const sum = (field: "calls" | "weight_bytes" | "cache_bytes" | "activation_bytes" | "operations") =>
    profile.ops.reduce((total, op) => total + op[field], 0);
  const bytes = sum("weight_bytes") + sum("cache_bytes") + sum("activation_bytes");
  const { wall_ns } = profile;
  return markdownTable(COLUMNS, [
    ...profile.ops.map(({ op, kind, calls, time_ns, gb_per_s, gops }) => row(op, kind, calls, time_ns, gb_per_s, gops)),
    row("outside of ops", "", 0, profile.outside_ns, 0, 0),
    row("all", "", sum("calls"), wall_ns, perNanosecond(bytes, wall_ns), perNanosecond(sum("operations"), wall_ns)),
  ]);
}
