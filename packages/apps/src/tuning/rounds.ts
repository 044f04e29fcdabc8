/** Runs programs in turns, round after round, and keeps the time of each kind of command. */
import type { KernelQuery, Program } from "@mllm/core";
import type { Times } from "./decide.ts";
import { kindKey } from "./tuned_table.ts";

/** A captured program, as far as the tuner looks at it. */
export type TunableProgram = Pick<Program, "commands" | "profile"> & Disposable;

/** A run: how many tokens, behind how many others. */
export interface Point {
  readonly tokens: number;
  readonly position: number;
}

/** Per kind: times by point and round. */
export type Samples = ReadonlyMap<string, Times>;

/** A kind in its phase: a prompt's last row goes through the head alone. */
export const phaseKind = (query: KernelQuery): string => `${query.phase} ${kindKey(query)}`;

/** What is to be run. */
export interface RoundsPlan<P extends TunableProgram> {
  readonly programs: readonly P[];
  readonly points: readonly Point[];
  /** Rounds that have to count. */
  readonly rounds: number;
  run(program: P, point: Point): void;
  isQuiet(): boolean;
  /** Told of every point of a program, with the number of those that are planned by now; what it throws ends them. */
  onRun(done: number, total: number): Promise<void>;
}

/** A point of a round runs its program for at least so long: shorter ones are mostly waking threads. */
const POINT_NS_MIN = 4_000_000;
const REPEATS_MAX = 64;
/** Rounds that may be lost to other work: as many as shall count, and some. */
const LOST_MIN = 3;

/** The times of each program; undefined when the machine had too much other work. */
export async function runRounds<P extends TunableProgram>(plan: RoundsPlan<P>): Promise<Samples[] | undefined> {
  const { programs, points, rounds } = plan;
  const meters = programs.map((program) => new Meter(program, points.length));
  const perRound = programs.length * points.length;
  let [done, total] = [0, (rounds + 1) * perRound];
  const repeats = points.map(() => 1);
  const round = async (number: number) => {
    for (const [at, point] of points.entries()) {
      for (let i = 0; i < programs.length; i++) {
        const which = (i + number) % programs.length; // nobody is always behind the same one
        for (let n = 0; n < repeats[at]; n++) plan.run(programs[which], point);
        const ns = meters[which].take(at, repeats[at]);
        if (number === 0) repeats[at] = Math.max(repeats[at], Math.min(REPEATS_MAX, Math.ceil(POINT_NS_MIN / ns)));
        await plan.onRun(++done, total);
      }
    }
  };
  for (const meter of meters) meter.start();
  await round(0); // memory is touched, caches and predictors are warm, and this says how often to repeat
  for (let [number, kept, lost] = [1, 0, 0]; kept < rounds; number++) {
    for (const meter of meters) meter.start();
    let counts = plan.isQuiet();
    if (counts) {
      await round(number);
      counts = plan.isQuiet();
    }
    for (const meter of meters) meter.end(counts);
    if (counts) kept++;
    else if (++lost >= rounds + LOST_MIN) return undefined;
    else total = Math.max(total, done + (rounds - kept) * perRound);
  }
  return meters.map(({ times }) => times);
}

/** Takes from a program's profile what each point of a round added. */
class Meter {
  readonly #kinds: readonly string[];
  #before: number[] = [];
  #round: { point: number; ns: Map<string, number> }[] = [];
  readonly times = new Map<string, number[][]>();

  constructor(readonly program: TunableProgram, points: number) {
    this.#kinds = program.commands.map(({ query }) => phaseKind(query));
    for (const kind of this.#kinds) this.times.set(kind, Array.from({ length: points }, () => []));
  }

  start(): void {
    this.#before = this.program.profile().map(({ ns }) => ns);
    this.#round = [];
  }

  /**
   * Takes the nanoseconds since the last call, per command of each kind, in one of `repeats` runs; answers with those of
   * a whole run.
   */
  take(point: number, repeats: number): number {
    const now = this.program.profile().map(({ ns }) => ns);
    const sums = new Map<string, { ns: number; commands: number }>();
    this.#kinds.forEach((kind, i) => {
      const { ns, commands } = sums.get(kind) ?? { ns: 0, commands: 0 };
      sums.set(kind, { ns: ns + now[i] - this.#before[i], commands: commands + 1 });
    });
    this.#before = now;
    const ns = new Map([...sums].map(([kind, { ns, commands }]) => [kind, Math.max(1, ns) / commands / repeats]));
    this.#round.push({ point, ns });
    return Math.max(1, [...sums.values()].reduce((sum, { ns }) => sum + ns, 0) / repeats);
  }

  /** Keeps the round, or forgets it. */
  end(counts: boolean): void {
    if (!counts) return;
    for (const { point, ns } of this.#round) {
      for (const [kind, value] of ns) this.times.get(kind)![point].push(value);
    }
  }
}
