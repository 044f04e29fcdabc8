/**
 * Finds the fastest kernel choice of each kind of command by trying candidates inside captured programs: the same
 * weights, caches and memory as in use. All kinds try a candidate of their own at a time, the programs run in turns, and
 * what seems faster is compared with the default once more before it counts. `decide.ts` has the rule.
 */
import {
  type Backend,
  decodeLinearVariant,
  EventLoopTurns,
  type KernelChoice,
  type KernelQuery,
  type KernelRow,
  KernelSelector,
  type LinearVariant,
  type Program,
} from "@mllm/core";
import type { TuneProgress } from "../engine.ts";
import { bestBound, bestCandidate, type Controls, type Times, verdict } from "./decide.ts";
import type { LoadWatch } from "./load.ts";
import { phaseKind, type Point, runRounds, type Samples, type TunableProgram } from "./rounds.ts";
import { type Candidate, changedChoice, type Measurement, measurementKey, type Stage } from "./tuned_table.ts";

/** A backend, as far as the tuner looks at it. */
export type TunableBackend = Pick<Backend, "plugin" | "device" | "threads" | "selector">;

/** Something to run: a model, or layers of a usual size. */
export interface Workload<P extends TunableProgram = Program> {
  /** For the progress bar. */
  readonly name: string;
  /** Captures it with the kernels that the backend's selector chooses now. */
  capture(tokensMax: number): P;
  /** Runs a program of `capture`. */
  run(program: P, point: Point): void;
}

/** What a stage compares, and where. */
interface StagePlan {
  readonly stage: Stage;
  readonly points: readonly Point[];
  /** Rounds that count: medians of fewer are noise. */
  readonly rounds: number;
  /** How many times as fast as the default a candidate must be. */
  readonly margin: number;
  /** Other choices than the default. */
  candidates(query: KernelQuery): readonly Candidate[];
}

type Kinds = ReadonlyMap<string, KernelQuery>;
/** What each kind is to do in a program. */
type Assignment = ReadonlyMap<string, Candidate>;

/** Token counts around the bound between GEMV and GEMM. */
const FEW_TOKENS = [2, 3, 4, 6, 8, 12, 16, 24, 32];
/** Tokens of a long prompt: a register tile is as good with these as with more. */
const PREFILL_TOKENS = 192;
/** At level amx tiles of AMX take 64 rows and more, so the others work below. */
const PREFILL_TOKENS_AMX = 48;
const RUNS = [1, 2, 4, 8, 16, 32, 64];
/** Steps of 512 bytes. */
const PREFETCHES = [4, 8];
const PANEL = 16;
/** Short and long contexts: attention's work grows with them, and a choice has to suit all. */
const DECODE_POINTS = [{ tokens: 1, position: 256 }, { tokens: 1, position: 2047 }];
const THREAD_POINTS = [{ tokens: 32, position: 0 }, { tokens: PREFILL_TOKENS, position: 0 }, {
  tokens: PREFILL_TOKENS,
  position: 1024,
}];
/** How often an unclear comparison is made. */
const TRIES = 3;

/** 1, 2, 4 … and three quarters of the number of threads. */
export function fewerThreads(threads: number): Candidate[] {
  const counts = new Set<number>();
  for (let count = 1; count < threads; count *= 2) counts.add(count);
  if (threads > 4) counts.add(Math.floor(threads * 3 / 4));
  return [...counts].sort((a, b) => a - b).map((count) => ({ threads: count }));
}

/** The register tiles of a level but the one that a choice has: of those that are there, the largest that is not above. */
function otherTiles(sizes: readonly number[], choice: KernelChoice): LinearVariant[] {
  const { tileRows = Infinity } = decodeLinearVariant(choice.variant)!;
  const own = sizes.findLast((size) => size <= tileRows) ?? sizes[0];
  return sizes.filter((size) => size !== own).map((size) => ({ tileRows: size }));
}

/** The stages for a backend, each with the candidates of an op; `standard` chooses what they are held against. */
function stages({ threads, device, plugin }: TunableBackend, standard: KernelSelector): StagePlan[] {
  const other = fewerThreads(threads);
  const runs = (n: number) => RUNS.filter((run) => threads > 1 && run * threads * 2 <= n / PANEL);
  const isLinear = ({ op }: KernelQuery) => op === "linear";
  // Rows in f32 have a tile of one size, and prefetch by themselves.
  const isInt8 = (query: KernelQuery) => isLinear(query) && query.x !== "f32";
  const variants = (all: readonly LinearVariant[]): Candidate[] => all.map((variant) => ({ variant }));
  const tiles = plugin.tileRows?.[device.level] ?? [];
  const tileTokens = device.level === "amx" ? PREFILL_TOKENS_AMX : PREFILL_TOKENS;
  return [
    {
      stage: "decode",
      points: DECODE_POINTS,
      rounds: 12,
      margin: 1.03,
      // Threads first, at the same place for all: commands of one job get the most that one of them asks for.
      candidates: (query) => [
        ...other,
        ...(isLinear(query) ? variants(runs(query.n).map((run) => ({ run }))) : []),
        ...(isInt8(query) ? variants(PREFETCHES.map((prefetch) => ({ prefetch }))) : []),
      ],
    },
    {
      stage: "few rows",
      points: FEW_TOKENS.map((tokens) => ({ tokens, position: 0 })),
      rounds: 8,
      margin: 1.015, // most points are the same kernel with any bound
      candidates: (query) => isLinear(query) ? variants([{ mode: "gemv" }, { mode: "gemm" }]) : [],
    },
    {
      stage: "prefill",
      points: [{ tokens: tileTokens, position: 0 }],
      rounds: 8,
      margin: 1.03,
      candidates: (query) => isInt8(query) ? variants(otherTiles(tiles, standard.choose(query))) : [],
    },
    // A program for prompts holds one choice for any number of tokens: fewer threads have to suit all.
    { stage: "threads", points: THREAD_POINTS, rounds: 8, margin: 1.03, candidates: () => other },
  ];
}

/** The commands of a program by kind, those of the phase only. */
function kindsOf(program: TunableProgram, stage: Stage): Kinds {
  const phase = stage === "decode" ? "decode" : "prefill";
  const queries = program.commands.map(({ query }) => query).filter((query) => query.phase === phase);
  return new Map(queries.map((query) => [phaseKind(query), query]));
}

/** How to tune. */
export interface TuneOptions {
  /** Tells whether the machine is ours. */
  readonly watch: Pick<LoadWatch, "isQuiet">;
  /** Told of every run of a program. */
  readonly onRun: TuneProgress;
  /** Ends the tuning within a run: it throws the signal's reason then. */
  readonly signal?: AbortSignal;
}

/** The event loop gets a turn after so long: the signal comes there. */
const TURN_MS = 50;

/** Finds out what is best for the kinds of command of a backend. */
export class Tuner<P extends TunableProgram = Program> {
  readonly #backend: TunableBackend;
  /** The choices without any tuned row. */
  readonly #standard: KernelSelector;
  readonly #options: TuneOptions;
  readonly #turns = new EventLoopTurns(TURN_MS);
  /** Stages that were given up because the machine had other work. */
  disturbed = 0;

  constructor(backend: TunableBackend, options: TuneOptions) {
    this.#backend = backend;
    this.#options = options;
    this.#standard = new KernelSelector(
      backend.plugin.kernelRows.filter(({ tuned }) => !tuned),
      backend.device.level,
      backend.device.microarchitecture,
    );
  }

  /**
   * Measures what is in a workload and not yet among the `known` (keys of measurements), a stage at a time: the results
   * of each are given as soon as they are there.
   */
  async *tune(workload: Workload<P>, known: ReadonlySet<string>): AsyncGenerator<Measurement[]> {
    const { selector } = this.#backend;
    try {
      for (const plan of stages(this.#backend, this.#standard)) {
        const found = await this.#runStage(workload, plan, known);
        if (found === undefined) this.disturbed++;
        else if (found.length > 0) yield found;
      }
    } finally {
      this.#backend.selector = selector;
    }
  }

  /** Undefined when the machine had too much other work. */
  async #runStage(
    workload: Workload<P>,
    plan: StagePlan,
    known: ReadonlySet<string>,
  ): Promise<Measurement[] | undefined> {
    const { stage } = plan;
    using program = this.#captured(workload, plan, new Map());
    const all = kindsOf(program, stage);
    const kinds: Kinds = new Map(
      [...all].filter(([, query]) =>
        !known.has(measurementKey({ stage, ...query })) && plan.candidates(query).length > 0
      ),
    );
    const winners = await this.#settle(kinds, (open) => this.#compare(workload, plan, all, open));
    if (winners === undefined) return undefined;
    const least = 1 + (plan.margin - 1) * 2 / 3;
    const gains = await this.#settle(winners, (open) => this.#confirm(workload, plan, winners, open, least));
    if (gains === undefined) return undefined;
    return [...kinds].map(([kind, { op, dtype, x, n, k }]) => {
      const gain = gains.get(kind);
      const what = { stage, op, dtype, x, n, ...(k === undefined ? {} : { k }) };
      if (gain === undefined) return { ...what, gain: 1 };
      return { ...what, ...winners.get(kind), gain: Math.min(1000, Math.round(gain * 1000) / 1000) };
    });
  }

  /**
   * Makes a comparison again for the kinds that it left unclear. Of the answers, those that are no "nothing" (undefined)
   * are given; what stays unclear counts as nothing. Undefined when the machine had too much other work.
   */
  async #settle<K, R>(
    kinds: ReadonlyMap<string, K>,
    compare: (open: ReadonlyMap<string, K>) => Promise<Answers<R> | undefined>,
  ): Promise<Map<string, R> | undefined> {
    const settled = new Map<string, R>();
    let open = kinds;
    for (let tried = 0; tried < TRIES && open.size > 0; tried++) {
      const answers = await compare(open);
      if (answers === undefined) return undefined;
      for (const [kind, answer] of answers) {
        if (answer !== undefined && answer !== "unclear") settled.set(kind, answer);
      }
      open = new Map([...open].filter(([kind]) => answers.get(kind) === "unclear"));
    }
    return settled;
  }

  /** The candidate of each open kind that seems fastest. All kinds try theirs, so that those of one job go together. */
  async #compare(
    workload: Workload<P>,
    plan: StagePlan,
    all: Kinds,
    open: Kinds,
  ): Promise<Answers<Candidate> | undefined> {
    const lists = new Map([...all].map(([kind, query]) => [kind, plan.candidates(query)]));
    const count = Math.max(...[...open.keys()].map((kind) => lists.get(kind)!.length));
    const tried = Array.from(
      { length: count },
      (_, i): Assignment => new Map([...lists].map(([kind, list]) => [kind, list[i] ?? {}])),
    );
    const samples = await this.#measure(workload, plan, tried);
    if (samples === undefined) return undefined;
    return new Map([...open.keys()].map((kind) => {
      const list = lists.get(kind)!;
      const times = samples.tried.slice(0, list.length).map((one) => one.get(kind)!);
      const controls = controlsOf(samples, kind);
      if (plan.stage === "few rows") return [kind, boundCandidate(times, controls, plan)];
      const best = bestCandidate(times, controls, plan.margin);
      return [kind, typeof best === "number" ? list[best] : best];
    }));
  }

  /** The gains of open winners in new runs of all beside the default alone; nothing where they do not show again. */
  async #confirm(
    workload: Workload<P>,
    plan: StagePlan,
    winners: Assignment,
    open: Assignment,
    margin: number,
  ): Promise<Answers<number> | undefined> {
    const samples = await this.#measure(workload, plan, [winners]);
    if (samples === undefined) return undefined;
    return new Map([...open.keys()].map((kind) => {
      const gain = verdict(samples.tried[0].get(kind)!, controlsOf(samples, kind), margin);
      return [kind, gain === 1 ? undefined : gain];
    }));
  }

  /** Captures one program per assignment and two with the default, and runs them in turns. */
  async #measure(workload: Workload<P>, plan: StagePlan, tried: readonly Assignment[]): Promise<Measured | undefined> {
    const programs: P[] = [];
    try {
      for (const one of [new Map(), ...tried, new Map()]) programs.push(this.#captured(workload, plan, one));
      const samples = await runRounds({
        programs,
        points: plan.points,
        rounds: plan.rounds,
        run: (program, point) => workload.run(program, point),
        isQuiet: () => this.#options.watch.isQuiet(),
        onRun: (done, total) => this.#told(`${workload.name}: ${plan.stage}`, done, total),
      });
      return samples && { controls: [samples[0], samples[samples.length - 1]], tried: samples.slice(1, -1) };
    } finally {
      for (const program of programs) program[Symbol.dispose]();
    }
  }

  async #told(what: string, done: number, total: number): Promise<void> {
    const { onRun, signal } = this.#options;
    onRun(what, done, total);
    await this.#turns.give();
    signal?.throwIfAborted();
  }

  #captured(workload: Workload<P>, { points }: StagePlan, assignment: Assignment): P {
    const { rows, level, cpu } = this.#standard;
    this.#backend.selector = new AssignedSelector(assignment, rows, level, cpu);
    return workload.capture(Math.max(...points.map(({ tokens }) => tokens)));
  }
}

/** What a comparison says of each kind: nothing (undefined) where the default stays. */
type Answers<R> = ReadonlyMap<string, R | undefined | "unclear">;

/** What the programs of a comparison took. */
interface Measured {
  readonly controls: readonly [Samples, Samples];
  readonly tried: readonly Samples[];
}

function controlsOf({ controls: [first, last] }: Measured, kind: string): Controls {
  return [first.get(kind)!, last.get(kind)!];
}

/** The bound between GEMV and GEMM that suits best; nothing when the default is as good. */
function boundCandidate(
  [gemv, gemm]: readonly Times[],
  controls: Controls,
  { points, margin }: StagePlan,
): Candidate | undefined | "unclear" {
  const bound = bestBound(gemv, gemm, points.map(({ tokens }) => tokens));
  const mixed = points.map(({ tokens }, point) => tokens <= bound ? gemv[point] : gemm[point]);
  const best = bestCandidate([mixed], controls, margin);
  return best === 0 ? { variant: { fewRows: Math.max(1, bound) } } : best as undefined | "unclear";
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
