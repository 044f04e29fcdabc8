/** The rule of `mllm tune` on times that are made up: nothing here looks at a clock. */
import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals } from "@std/assert";
import { decodeLinearVariant, type KernelQuery, KernelSelector, type LinearVariant, noCost } from "@mllm/core";
import { x86 } from "@mllm/backend-x86";
import { bestBound, bestCandidate, median, type Times, verdict } from "./decide.ts";
import type { Point, TunableProgram } from "./rounds.ts";
import { type Measurement, measurementKey } from "./tuned_table.ts";
import { fewerThreads, type TunableBackend, type TuneOptions, Tuner, type Workload } from "./tuner.ts";

const THREADS = 4;

/** A backend without a library: the tuner needs its selector and names only. */
function fakeBackend(level = "avx2", microarchitecture?: string): TunableBackend {
  const device = {
    name: "x86",
    available: true,
    microarchitecture,
    level,
    levels: [level],
    missing: {},
    features: [],
    cores: THREADS,
    memoryBytes: 0,
  };
  return {
    plugin: x86,
    device,
    threads: THREADS,
    selector: new KernelSelector(x86.kernelRows, level, microarchitecture),
  };
}

const linearQuery = { op: "linear", dtype: "q4_0", x: "q8a", n: 1024, k: 512 } as const;
const addQuery = { op: "add", dtype: "f32", x: "f32", n: 512 } as const;

/** A command without its phase. */
type Kind = Omit<KernelQuery, "phase" | "rows" | "elements"> & { n: number };

/** What a command is asked to do. */
interface Asked {
  query: KernelQuery;
  variant: LinearVariant;
  threads: number;
  point: Point;
}

/** Microseconds of a command, as the test wants them. */
type Law = (asked: Asked) => number;

/** Its linears are one job: they get the most threads that one of them asks for, of which 0 are all. */
class FakeProgram implements TunableProgram {
  readonly commands: TunableProgram["commands"];
  #ns: number[];

  constructor(selector: KernelSelector, tokensMax: number, kinds: readonly Kind[], readonly law: Law) {
    const phase = tokensMax === 1 ? "decode" : "prefill";
    this.commands = kinds.map((one) => {
      const query: KernelQuery = { ...one, phase, rows: tokensMax, elements: tokensMax * one.n };
      const { variant, threads, reason } = selector.choose(query);
      return { op: query.op, text: "", kind: "", query, variant, threads, reason, cost: () => noCost };
    });
    this.#ns = this.commands.map(() => 0);
  }

  run(point: Point) {
    const asked = this.commands.filter(({ op }) => op === "linear").map(({ threads }) => threads);
    const ofJob = asked.includes(0) ? 0 : Math.max(...asked);
    this.commands.forEach(({ op, query, variant, ...own }, i) => {
      const threads = op === "linear" ? ofJob : own.threads;
      this.#ns[i] += 1000 * this.law({ query, variant: decodeLinearVariant(variant)!, threads, point });
    });
  }
  profile() {
    return this.commands.map(({ op }, i) => (
      { op, text: "", kind: "", variant: 0, calls: 1, ns: this.#ns[i], cost: noCost }
    ));
  }
  [Symbol.dispose]() {}
}

interface FakeTuning {
  kinds?: readonly Kind[];
  known?: Measurement[];
  backend?: TunableBackend;
  isQuiet?: () => boolean;
}

const usual = [linearQuery, linearQuery, addQuery];

function tuned(law: Law, tuning: FakeTuning, options: Partial<TuneOptions> = {}) {
  const { kinds = usual, known = [], backend = fakeBackend(), isQuiet = () => true } = tuning;
  const workload: Workload<FakeProgram> = {
    name: "fake",
    capture: (tokensMax) => new FakeProgram(backend.selector, tokensMax, kinds, law),
    run: (program, point) => program.run(point),
  };
  const tuner = new Tuner<FakeProgram>(backend, { watch: { isQuiet }, onRun: () => {}, ...options });
  return { tuner, stages: tuner.tune(workload, new Set(known.map(measurementKey))) };
}

async function tune(law: Law, tuning: FakeTuning = {}) {
  const { tuner, ...running } = tuned(law, tuning);
  const stages = await Array.fromAsync(running.stages);
  return { stages, all: stages.flat(), disturbed: tuner.disturbed };
}

/** Random numbers from 0 to 1, the same for the same seed. */
function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
}

/** Runs of 8 panels, GEMV up to 6 rows, tiles of 2, and adding on 2 threads are best. */
const law: Law = ({ query: { op, phase }, variant, threads, point: { tokens } }) => {
  const { mode = "auto", fewRows = 12, tileRows, run } = variant;
  if (op === "add") return threads === 2 ? 500 : 600;
  if (phase === "decode") return run === 8 ? 7000 : 10_000;
  const gemv = mode === "gemv" || (mode === "auto" && tokens <= fewRows);
  if (tokens < 32) return gemv ? 1000 * tokens : 3200 + 500 * tokens;
  return tileRows === 2 ? 90_000 : 100_000;
};

const choices = (all: Measurement[]) =>
  all.filter(({ gain }) => gain > 1).map(({ stage, op, variant, threads }) => [stage, op, variant ?? threads]);

const found = async (law: Law, tuning?: FakeTuning) => choices((await tune(law, tuning)).all);

describe("the tuner", () => {
  it("finds what is faster, and keeps the default where nothing is", async () => {
    const { all, disturbed } = await tune(law);
    assertEquals(choices(all), [
      ["decode", "linear", { run: 8 }],
      ["decode", "add", 2],
      ["few rows", "linear", { fewRows: 6 }],
      ["prefill", "linear", { tileRows: 2 }],
      ["threads", "add", 2],
    ]);
    assertEquals(all.length, 6, "and the threads of linear, where the default stays");
    assertEquals(disturbed, 0);
    assertEquals(await found(() => 10_000), []);
  });

  it("finds it in noise, too", async () => {
    let count = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const random = randoms(seed);
      count += (await found((asked) => law(asked) * (1 + 0.1 * random()))).length;
    }
    assert(count >= 0.8 * 20 * 5, `${count} of 100`);
  });

  it("does not take noise for speed", async () => {
    const noises: Record<string, (random: () => number, calls: number) => number> = {
      "a fifth": (random) => 1 + 0.2 * random(),
      "seldom eight times": (random) => random() < 0.05 ? 8 : 1 + 0.05 * random(),
      "slower and slower": (_, calls) => 1 + calls / 20_000,
      "slow phases": (random, calls) => (Math.floor(calls / 400) % 3 === 0 ? 1.7 : 1) + 0.05 * random(),
    };
    for (const [name, noise] of Object.entries(noises)) {
      for (let seed = 1; seed <= 20; seed++) {
        const random = randoms(seed);
        let calls = 0;
        assertEquals(await found(() => 10_000 * noise(random, calls++)), [], `${name}, ${seed}`);
      }
    }
  });

  it("takes a choice only if it suits short and long contexts", async () => {
    const { all } = await tune(({ query: { op, phase }, threads, point: { position } }) => {
      if (op !== "add" || phase !== "decode" || threads !== 1) return 1000;
      return position < 1000 ? 500 : 1100;
    });
    assertEquals(choices(all), []);
  });

  it("tries a number of threads for all commands of a job at a time, whatever else it tries for each", async () => {
    const kinds = [{ ...linearQuery, n: 4096 }, { ...linearQuery, n: 512 }, addQuery];
    const two: Law = ({ query: { op }, threads }) => op === "linear" && threads === 2 ? 80 : 100;
    const expected = (["decode", "decode", "threads", "threads"] as const).map((
      stage,
    ) => [stage, "linear" as const, 2]);
    assertEquals(await found(two, { kinds }), expected);
    // Disturbed at first, one of them is compared again.
    let calls = 0;
    const once: Law = (asked) => asked.query.n === 4096 && asked.threads === 0 && calls++ < 3000 ? 8000 : two(asked);
    assertEquals(await found(once, { kinds }), expected);
  });

  it("tries only what a kernel listens to", async () => {
    const asked = async (x: "f32" | "q8a") => {
      const seen = new Set<string>();
      const kinds = [{ ...linearQuery, x }];
      await tune(({ variant }) => (Object.keys(variant).forEach((field) => seen.add(field)), 100), { kinds });
      return ["fewRows", "mode", "prefetch", "run", "tileRows"].filter((field) => seen.has(field));
    };
    assertEquals(await asked("q8a"), ["mode", "prefetch", "run", "tileRows"]);
    assertEquals(await asked("f32"), ["mode", "run"]);
  });

  it("tries each register tile of a level but the one in use, once", async () => {
    const tried = async (level: string, microarchitecture?: string) => {
      const programs = new Set<number | undefined>();
      const backend = fakeBackend(level, microarchitecture);
      await tune(({ variant: { tileRows } }) => (programs.add(tileRows), 100), { backend, kinds: [linearQuery] });
      return [...programs];
    };
    assertEquals(await tried("portable"), [undefined]);
    assertEquals(await tried("avx2"), [undefined, 2, 3]);
    assertEquals(await tried("avx2", "zen3"), [undefined, 4, 2, 3], "whose row says 4, for prompts");
    assertEquals(await tried("avx512vnni"), [undefined, 4, 6]);
    assertEquals(await tried("amx"), [undefined, 4, 6]);
  });

  it("ends at the signal and leaves the stage that runs", async () => {
    const stop = new AbortController();
    const backend = fakeBackend();
    const { selector } = backend;
    const stages: Measurement[][] = [];
    const onRun = (what: string) => what === "fake: few rows" && stop.abort();
    const ended = (async () => {
      for await (const stage of tuned(law, { backend }, { onRun, signal: stop.signal }).stages) stages.push(stage);
    })();
    assertEquals(await ended.catch((error) => error), stop.signal.reason);
    assertEquals(stages.map(([{ stage }]) => stage), ["decode"]);
    assert(backend.selector === selector);
  });

  it("believes no gain that a kernel can't have", async () => {
    const eightfold = (us: number): Law => ({ query: { op }, threads }) => op === "add" && threads === 1 ? us : us * 8;
    assertEquals(await found(eightfold(1000)), [], "7 ms of a command");
    assertEquals(
      await found(eightfold(4)),
      [["decode", "add", 1], ["threads", "add", 1]],
      "28 µs: waking threads",
    );
    // The default of the first comparison is disturbed, that of the next is not.
    let calls = 0;
    const once: Law = ({ query: { op }, threads }) => op === "add" && threads === 0 && calls++ < 100 ? 8000 : 1000;
    assertEquals(await found(once), []);
  });

  it("repeats rounds beside other programs, and leaves what it can't measure for the next time", async () => {
    let looks = 0;
    // Busy for some looks: then linear's default takes 8 times as long, and no choice of run does.
    const isBusy = () => looks % 20 < 4;
    const disturbedLaw: Law = ({ variant: { run }, query: { phase } }) =>
      isBusy() && phase === "decode" && run === undefined ? 80_000 : 10_000;
    const { all, disturbed } = await tune(disturbedLaw, { isQuiet: () => (looks++, !isBusy()) });
    assertEquals([choices(all), disturbed], [[], 0]);
    const never = await tune(law, { isQuiet: () => false });
    assertEquals([never.all, never.disturbed], [[], 4]);
  });

  it("goes on after an interruption, with the same result", async () => {
    const whole = (await tune(law)).stages;
    const before = whole[0];
    let decodeRuns = 0;
    const { stages: rest } = await tune((asked) => {
      if (asked.query.phase === "decode") decodeRuns++;
      return law(asked);
    }, { known: before });
    assertEquals(decodeRuns, 0);
    assertEquals([before, ...rest], whole);
    assertEquals((await tune(law, { known: whole.flat() })).stages, []);
  });

  it("leaves the backend's own selector in place", async () => {
    const backend = fakeBackend();
    const { selector } = backend;
    await tune(law, { backend });
    assert(backend.selector === selector);
  });

  it("tries fewer threads in powers of two and three quarters", () => {
    const counts = (threads: number) => fewerThreads(threads).map((one) => one.threads);
    assertEquals([1, 2, 4, 6, 8, 14].map(counts), [[], [1], [1, 2], [1, 2, 4], [1, 2, 4, 6], [1, 2, 4, 8, 10]]);
  });
});

describe("decisions", () => {
  const times = (...rounds: number[]): Times => [rounds.map((us) => us * 1000)];
  const standard = times(99, 99, 99, 99);

  it("ask for a margin in most rounds, a microsecond, and a default that agrees with itself", () => {
    assertEquals(median([3, 1, 2]), 2);
    assertEquals(median([4, 1, 2, 3]), 2.5);
    const one = (candidate: Times, last = standard, margin = 1.05) => verdict(candidate, [standard, last], margin);
    assertEquals(one(times(90, 90, 90, 90)), 1.1);
    assertEquals(one(times(98, 98, 98, 98)), 1, "less than the margin");
    assertEquals(one(times(50, 50, 100, 100)), 1, "in half of the rounds");
    assertEquals(one(times(90, 90, 90, 90), times(80, 80, 80, 80)), "unclear");
    assertEquals(verdict([[200, 200]], [[[300, 300]], [[300, 300]]], 1.05), 1, "a tenth of a microsecond");
    assertEquals(one(times(40, 40, 40, 40)), "unclear", "59 µs and more than twice the speed");
    const two = (a: number, b: number): Times => [...times(a, a), ...times(b, b)];
    assertEquals(verdict(two(40, 200), [two(99, 180), two(99, 180)], 1.05), 1, "slower at the second point");
  });

  it("take the candidate with the largest gain", () => {
    const controls = [standard, standard] as const;
    assertEquals(bestCandidate([times(99, 99, 99, 99), times(80, 80, 80, 80)], controls, 1.05), 1);
    assertEquals(bestCandidate([times(99, 99, 99, 99)], controls, 1.05), undefined);
    assertEquals(bestCandidate([times(9, 9, 9, 9), times(90, 90, 90, 90)], controls, 1.05), "unclear");
  });

  it("bound GEMV where the sum of both is smallest", () => {
    const points = (values: number[]) => values.map((value) => [value]);
    assertEquals(bestBound(points([1, 2, 4, 8]), points([3, 3, 3, 3]), [2, 4, 8, 16]), 4);
    assertEquals(bestBound(points([4, 4, 4, 4]), points([3, 3, 3, 3]), [2, 4, 8, 16]), 0);
    assertEquals(bestBound(points([2, 3.1, 1, 8]), points([3, 3, 3, 3]), [2, 4, 8, 16]), 8, "one point out of line");
  });
});
