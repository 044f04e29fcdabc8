/**
 * Finds the fastest kernel choice of each kind of command by trying candidates inside captured programs: the same
 * weights, caches and memory as in use. All kinds try a candidate of their own at a time, the programs run in turns, and
 * what seems faster is compared with the default once more before it counts.
 */
import { type Backend, type KernelQuery, type KernelRow, KernelSelector, type Program } from "@mllm/core";
import { bestBound, bestCandidate, certainGain, type Times } from "./decide.ts";
import { type Candidate, changedChoice, kindKey, type Measurement, measurementKey, type Stage } from "./tuned_table.ts";

/** A captured program, as far as the tuner looks at it. */
export type TunableProgram = Pick<Program, "commands" | "profile"> & Disposable;
/** A backend likewise. */
export type TunableBackend = Pick<Backend, "plugin" | "device" | "threads" | "selector">;

/** Something to run: a model, or layers of a usual size. */
export interface Workload<P extends TunableProgram = Program> {
  /** For the progress bar. */
  readonly name: string;
  /** Captures it with the kernels that the backend's selector chooses now. */
  capture(tokensMax: number): P;
  /** Runs a program of `capture`. */
  run(program: P, tokens: number): void;
}

/** What a stage compares, at how many tokens. */
interface StagePlan {
  readonly stage: Stage;
  readonly tokens: readonly number[];
  /** Runs of each program: medians of fewer are noise. */
  readonly rounds: number;
  /** How many times as fast as the default a candidate must be; the mean over the token counts. */
  readonly gainMin: number;
  /** The default first. */
  candidates(query: KernelQuery): readonly Candidate[];
}

type Kinds = ReadonlyMap<string, KernelQuery>;
/** What each kind is to do in a program. */
type Assignment = ReadonlyMap<string, Candidate>;
/** Per kind: times by point and round. */
type Samples = ReadonlyMap<string, Times>;

/** Token counts around the bound between GEMV and GEMM. */
const FEW_TOKENS = [2, 3, 4, 6, 8, 12, 16, 24, 32];
/** Tokens of a long prompt: a register tile is as good with these as with more. */
const PREFILL_TOKENS = 192;
/** At level amx tiles of AMX take 64 rows and more, so the others work below. */
const PREFILL_TOKENS_AMX = 48;
const TILE_ROWS = [2, 4, 8];
const RUNS = [1, 2, 4, 8, 16, 32, 64];
const PANEL = 16;

/** A kind in its phase: a prompt's last row goes through the head alone. */
const phaseKind = (query: KernelQuery): string => `${query.phase} ${kindKey(query)}`;

/** 1, 2, 4 … below the number of threads. */
function fewerThreads(threads: number): Candidate[] {
  const fewer: Candidate[] = [];
  for (let count = 1; count < threads; count *= 2) fewer.push({ threads: count });
  return fewer;
}

/**
 * The stages for a backend, each with the candidates of an op. Thread numbers are for decoding alone: a program for
 * prompts holds one choice for any number of tokens, and native code takes fewer threads for few of them by itself.
 */
function stages({ threads, device }: TunableBackend): StagePlan[] {
  const other = fewerThreads(threads);
  const runs = (n: number) => RUNS.filter((run) => threads > 1 && run * threads * 2 <= n / PANEL);
  return [
    {
      stage: "decode",
      tokens: [1],
      rounds: 15,
      gainMin: 1.03,
      candidates: ({ op, n }) => [
        {},
        ...(op === "linear" ? runs(n).map((run) => ({ variant: { run } })) : []),
        ...other,
      ],
    },
    {
      stage: "few rows",
      tokens: FEW_TOKENS,
      rounds: 7,
      gainMin: 1.015, // most points are the same kernel with any bound
      candidates: ({ op }) =>
        op === "linear" ? [{}, { variant: { mode: "gemv" } }, { variant: { mode: "gemm" } }] : [{}],
    },
    {
      stage: "prefill",
      tokens: [device.level === "amx" ? PREFILL_TOKENS_AMX : PREFILL_TOKENS],
      rounds: 5,
      gainMin: 1.03,
      candidates: ({ op }) =>
        op === "linear" ? [{}, ...TILE_ROWS.map((tileRows) => ({ variant: { tileRows } }))] : [{}],
    },
  ];
}

/** The commands of a program by kind, those of the phase only. */
function kindsOf(program: TunableProgram, stage: Stage): Kinds {
  const phase = stage === "decode" ? "decode" : "prefill";
  const queries = program.commands.map(({ query }) => query).filter((query) => query.phase === phase);
  return new Map(queries.map((query) => [phaseKind(query), query]));
}

/** Finds out what is best for the kinds of command of a backend. */
export class Tuner<P extends TunableProgram = Program> {
  readonly #backend: TunableBackend;
  /** The choices without any tuned row. */
  readonly #standard: KernelSelector;
  readonly #onRun: (what: string, done: number, total: number) => void;

  /** `onRun` is told of every run of a program. */
  constructor(backend: TunableBackend, onRun: (what: string, done: number, total: number) => void) {
    this.#backend = backend;
    this.#standard = new KernelSelector(
      backend.plugin.kernelRows.filter(({ tuned }) => !tuned),
      backend.device.level,
      backend.device.microarchitecture,
    );
    this.#onRun = onRun;
  }

  /**
   * Measures what is in a workload and not yet among the `known` (keys of measurements), a stage at a time: the results
   * of each are given as soon as they are there.
   */
  *tune(workload: Workload<P>, known: ReadonlySet<string>): Generator<Measurement[]> {
    const { selector } = this.#backend;
    try {
      for (const plan of stages(this.#backend)) {
        const found = this.#runStage(workload, plan, known);
        if (found.length > 0) yield found;
      }
    } finally {
      this.#backend.selector = selector;
    }
  }

  #runStage(workload: Workload<P>, plan: StagePlan, known: ReadonlySet<string>): Measurement[] {
    const { stage } = plan;
    const kinds = new Map(
      [...this.#capture(workload, plan, new Map(), (program) => kindsOf(program, stage))].filter(([, query]) =>
        !known.has(measurementKey({ stage, ...query })) && plan.candidates(query).length > 1
      ),
    );
    if (kinds.size === 0) return [];
    const lists = new Map([...kinds].map(([kind, query]) => [kind, plan.candidates(query)]));
    const count = Math.max(...[...lists.values()].map((list) => list.length));
    const tried = Array.from(
      { length: count },
      (_, i): Assignment => new Map([...lists].map(([kind, list]) => [kind, list[i] ?? {}])),
    );
    const samples = this.#measure(workload, plan, tried);
    const winners = new Map<string, Candidate>();
    for (const [kind, list] of lists) {
      const times = samples.slice(0, list.length).map((one) => one.get(kind)!);
      const winner = stage === "few rows" ? boundCandidate(times, plan) : list[bestCandidate(times, plan.gainMin)];
      if (winner.variant !== undefined || winner.threads !== undefined) winners.set(kind, winner);
    }
    const gains = winners.size === 0 ? new Map<string, number>() : this.#confirm(workload, plan, winners);
    return [...kinds].map(([kind, { op, dtype, x, n, k }]) => {
      const gain = Math.min(1000, Math.round((gains.get(kind) ?? 1) * 1000) / 1000);
      return {
        stage,
        op,
        dtype,
        x,
        n,
        ...(k === undefined ? {} : { k }),
        ...(gain > 1 ? winners.get(kind) : {}),
        gain,
      };
    });
  }

  /** The gains of the winners over the default in new runs; 1 where they do not show again. */
  #confirm(workload: Workload<P>, plan: StagePlan, winners: Assignment): Map<string, number> {
    const least = 1 + (plan.gainMin - 1) * 2 / 3; // whoever was lucky at first is so no longer
    const [standard, chosen] = this.#measure(workload, plan, [new Map(), winners]);
    return new Map(
      [...winners.keys()].map((
        kind,
      ) => [kind, certainGain(chosen.get(kind)!, standard.get(kind)!, least)]),
    );
  }

  /** Captures one program per assignment, and runs them in turns. */
  #measure(workload: Workload<P>, plan: StagePlan, assignments: readonly Assignment[]): Samples[] {
    const programs: P[] = [];
    try {
      for (const one of assignments) programs.push(this.#captured(workload, plan, one));
      const meters = programs.map((program) => new Meter(program, plan.tokens));
      const total = plan.tokens.length * (plan.rounds + 1) * programs.length;
      let done = 0;
      for (let round = -1; round < plan.rounds; round++) {
        for (const [point, tokens] of plan.tokens.entries()) {
          for (let i = 0; i < programs.length; i++) {
            const which = (i + Math.max(0, round)) % programs.length; // nobody is always behind the same one
            workload.run(programs[which], tokens);
            meters[which].take(round < 0 ? undefined : point);
            this.#onRun(`${workload.name}: ${plan.stage}`, ++done, total);
          }
        }
      }
      return meters.map(({ times }) => times);
    } finally {
      for (const program of programs) program[Symbol.dispose]();
    }
  }

  #captured(workload: Workload<P>, { tokens }: StagePlan, assignment: Assignment): P {
    const { rows, level, cpu } = this.#standard;
    this.#backend.selector = new AssignedSelector(assignment, rows, level, cpu);
    return workload.capture(Math.max(...tokens));
  }

  #capture<T>(workload: Workload<P>, plan: StagePlan, assignment: Assignment, use: (program: P) => T): T {
    using program = this.#captured(workload, plan, assignment);
    return use(program);
  }
}

/** The bound between GEMV and GEMM that suits best; nothing when the default is as good. */
function boundCandidate([standard, gemv, gemm]: readonly Times[], { tokens, gainMin }: StagePlan): Candidate {
  const bound = bestBound(gemv, gemm, tokens);
  const mixed = tokens.map((count, point) => count <= bound ? gemv[point] : gemm[point]);
  return bestCandidate([standard, mixed], gainMin) === 0 ? {} : { variant: { fewRows: Math.max(1, bound) } };
}

/** The standard rows, but for kinds that are to try something. */
class AssignedSelector extends KernelSelector {
  readonly #assignment: Assignment;

  constructor(assignment: Assignment, rows: readonly KernelRow[], level: string, cpu: string | undefined) {
    super(rows, level, cpu);
    this.#assignment = assignment;
  }

  override choose(query: KernelQuery) {
    const standard = super.choose(query);
    const candidate = this.#assignment.get(phaseKind(query));
    if (candidate === undefined) return standard;
    return { ...changedChoice(standard, candidate), reason: "tried by tune" };
  }
}

/** Takes from a program's profile what each run added. */
class Meter {
  readonly #kinds: readonly string[];
  readonly #points: number;
  #before: number[];
  readonly times: Map<string, number[][]> = new Map();

  constructor(readonly program: TunableProgram, tokens: readonly number[]) {
    this.#kinds = program.commands.map(({ query }) => phaseKind(query));
    this.#points = tokens.length;
    this.#before = program.profile().map(({ ns }) => ns);
  }

  /** Adds the nanoseconds since the last call to a point, per command of each kind; to none, they are forgotten. */
  take(point: number | undefined): void {
    const now = this.program.profile().map(({ ns }) => ns);
    const sums = new Map<string, number>();
    const counts = new Map<string, number>();
    this.#kinds.forEach((kind, i) => {
      sums.set(kind, (sums.get(kind) ?? 0) + now[i] - this.#before[i]);
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
    });
    this.#before = now;
    if (point === undefined) return;
    for (const [kind, ns] of sums) {
      const points = this.times.get(kind) ?? Array.from({ length: this.#points }, () => []);
      points[point].push(Math.max(1, ns) / counts.get(kind)!);
      this.times.set(kind, points);
    }
  }
}
