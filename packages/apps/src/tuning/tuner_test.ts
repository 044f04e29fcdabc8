import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals } from "@std/assert";
import { decodeLinearVariant, type KernelQuery, KernelSelector, type LinearVariant, noCost } from "@mllm/core";
import { x86 } from "@mllm/backend-x86";
import { bestBound, certainGain, median } from "./decide.ts";
import { type Measurement, measurementKey } from "./tuned_table.ts";
import { type TunableBackend, type TunableProgram, Tuner, type Workload } from "./tuner.ts";

/** A backend without a library: the tuner needs its selector and names only. */
function fakeBackend(level = "avx2"): TunableBackend {
  const device = {
    name: "x86",
    available: true,
    level,
    levels: [level],
    missing: {},
    features: [],
    cores: 4,
    memoryBytes: 0,
  };
  return { plugin: x86, device, threads: 4, selector: new KernelSelector(x86.kernelRows, level) };
}

const linearQuery = { op: "linear", dtype: "q4_0", x: "q8a", n: 1024, k: 512 } as const;
const addQuery = { op: "add", dtype: "f32", x: "f32", n: 512 } as const;

/** Microseconds of a choice, as the test wants them. */
type Law = (query: KernelQuery, variant: LinearVariant, threads: number, tokens: number) => number;

class FakeProgram implements TunableProgram {
  readonly commands: TunableProgram["commands"];
  #ns: number[];

  constructor(selector: KernelSelector, tokensMax: number, readonly law: Law) {
    const phase = tokensMax === 1 ? "decode" : "prefill";
    this.commands = [linearQuery, linearQuery, addQuery].map((one) => {
      const query: KernelQuery = { ...one, phase, rows: tokensMax, elements: tokensMax * one.n };
      const { variant, threads, reason } = selector.choose(query);
      return { op: query.op, text: "", kind: "", query, variant, threads, reason, cost: () => noCost };
    });
    this.#ns = this.commands.map(() => 0);
  }

  run(tokens: number) {
    this.commands.forEach(({ query, variant, threads }, i) =>
      this.#ns[i] += 1000 * this.law(query, decodeLinearVariant(variant)!, threads, tokens)
    );
  }
  profile() {
    return this.commands.map(({ op }, i) => (
      { op, text: "", kind: "", variant: 0, calls: 1, ns: this.#ns[i], cost: noCost }
    ));
  }
  [Symbol.dispose]() {}
}

function tune(law: Law, known: Measurement[] = [], backend = fakeBackend()): Measurement[][] {
  const workload: Workload<FakeProgram> = {
    name: "fake",
    capture: (tokensMax) => new FakeProgram(backend.selector, tokensMax, law),
    run: (program, tokens) => program.run(tokens),
  };
  const tuner = new Tuner<FakeProgram>(backend, () => {});
  return [...tuner.tune(workload, new Set(known.map(measurementKey)))];
}

/** Runs of 8 panels, GEMV up to 6 rows, tiles of 4, and adding on 2 threads are best. */
const law: Law = ({ op, phase }, { mode = "auto", fewRows = 12, tileRows, run }, threads, tokens) => {
  if (op === "add") return threads === 2 ? 50 : 100;
  if (phase === "decode") return run === 8 ? 700 : 1000;
  const gemv = mode === "gemv" || (mode === "auto" && tokens <= fewRows);
  if (tokens <= 32) return gemv ? 100 * tokens : 320 + 50 * tokens;
  return tileRows === 4 ? 9000 : 10_000;
};

describe("the tuner", () => {
  it("finds what is faster, and keeps the default where nothing is", () => {
    const all = tune(law).flat();
    const summary = all.map(({ stage, op, variant, threads }) => [stage, op, variant, threads]);
    assertEquals(summary, [
      ["decode", "linear", { run: 8 }, undefined],
      ["decode", "add", undefined, 2],
      ["few rows", "linear", { fewRows: 6 }, undefined],
      ["prefill", "linear", { tileRows: 4 }, undefined],
    ]);
    for (const { gain } of all) assert(gain > 1.03);
    for (const { gain, variant, threads } of tune(() => 100).flat()) {
      assertEquals([gain, variant, threads], [1, undefined, undefined]);
    }
  });

  it("does not take noise for speed", () => {
    let state = 1;
    const noise = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) / 2 ** 32;
    for (const one of tune(() => 1000 * (1 + 0.2 * noise())).flat()) assertEquals(one.gain, 1, measurementKey(one));
  });

  it("goes on after an interruption, with the same result", () => {
    const whole = tune(law);
    const before = whole[0];
    let decodeRuns = 0;
    const rest = tune((...args) => {
      if (args[0].phase === "decode") decodeRuns++;
      return law(...args);
    }, before);
    assertEquals(decodeRuns, 0);
    assertEquals([before, ...rest], whole);
    assertEquals(tune(law, whole.flat()), []);
  });

  it("leaves the backend's own selector in place", () => {
    const backend = fakeBackend();
    const { selector } = backend;
    tune(law, [], backend);
    assert(backend.selector === selector);
  });
});

describe("decisions", () => {
  it("ask for the same sign in most rounds", () => {
    assertEquals(median([3, 1, 2]), 2);
    assertEquals(median([4, 1, 2, 3]), 2.5);
    assertEquals(certainGain([[90e3, 90e3, 90e3, 90e3]], [[99e3, 99e3, 99e3, 99e3]], 1.05), 1.1);
    assertEquals(certainGain([[90e3, 90e3, 91e3, 98e3]], [[99e3, 99e3, 90e3, 97e3]], 1.0), 1);
    assertEquals(certainGain([[98e3, 98e3, 98e3, 98e3]], [[99e3, 99e3, 99e3, 99e3]], 1.05), 1);
    assertEquals(certainGain([[200, 200, 200]], [[300, 300, 300]], 1.05), 1, "a tenth of a microsecond");
  });

  it("bound GEMV where the sum of both is smallest", () => {
    const times = (values: number[]) => values.map((value) => [value]);
    assertEquals(bestBound(times([1, 2, 4, 8]), times([3, 3, 3, 3]), [2, 4, 8, 16]), 4);
    assertEquals(bestBound(times([4, 4, 4, 4]), times([3, 3, 3, 3]), [2, 4, 8, 16]), 0);
    assertEquals(bestBound(times([2, 3.1, 1, 8]), times([3, 3, 3, 3]), [2, 4, 8, 16]), 8, "one point out of line");
  });
});
