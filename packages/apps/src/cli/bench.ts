/** `mllm bench`: tokens per second, in the columns and JSON rows of llama-bench. */
import { formatMiB } from "@mllm/core";
import { loadWithBar } from "../chat/main.ts";
import type { Engine, LoadedModel, ModelSummary } from "../engine.ts";
import { parseInteger, UsageError } from "../options.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { type Column, tableHead, tableRow } from "../markdown_table.ts";
import { withBar } from "../terminal/progress.ts";
import { describeProgram, Profiler, profileTable, programText, type TestProfile } from "./bench_profile.ts";
import { VERSION } from "../version.ts";
import { type Command, MODEL_HINT } from "./command.ts";

/** What ran, and on what, named as llama-bench names its fields (tools/llama-bench of llama.cpp). */
export interface RunFields {
  build_commit: string;
  build_number: number;
  cpu_info: string;
  gpu_info: string;
  backends: string;
  model_filename: string;
  model_type: string;
  model_size: number;
  model_n_params: number;
  n_batch: number;
  n_ubatch: number;
  n_threads: number;
  type_k: string;
  type_v: string;
}

/** The fields of a model that was opened from `path`. */
export function runFields(path: string, summary: ModelSummary, describe: ReturnType<Engine["describeRun"]>): RunFields {
  return {
    build_commit: VERSION,
    build_number: 0,
    cpu_info: describe.cpu,
    gpu_info: "",
    backends: `${describe.backend}:${describe.level}`,
    model_filename: path,
    model_type: summary.type,
    model_size: summary.fileBytes,
    model_n_params: summary.parameters,
    n_batch: describe.chunk,
    n_ubatch: describe.chunk,
    n_threads: describe.threads,
    type_k: describe.keyDtype,
    type_v: describe.valueDtype,
  };
}

/** One line of the table. */
export interface BenchRow extends RunFields {
  n_prompt: number;
  n_gen: number;
  n_depth: number;
  test_time: string;
  avg_ns: number;
  stddev_ns: number;
  avg_ts: number;
  stddev_ts: number;
  samples_ns: number[];
  samples_ts: number[];
  /** Bytes of activations: the arenas of captured programs, or the most of eager tensors at one time. */
  activation_bytes: number;
  /** With --profile. */
  profile?: TestProfile;
}

/** What is measured: tokens of a prompt or generated ones, after `depth` tokens of context. */
export interface BenchTest {
  prompt: number;
  generate: number;
  depth: number;
}

const LIST_MAX = 1000;

/** Comma list of numbers and ranges `first-last`, `first-last+step`, `first-last*factor`. */
export function parseCounts(what: string, text: string): number[] {
  const out: number[] = [];
  for (const part of text.split(",")) {
    const range = /^(\d+)-(\d+)(?:([+*])(\d+))?$/.exec(part.trim());
    if (range === null) {
      out.push(parseInteger(what, part.trim(), 0, 1 << 24));
      continue;
    }
    const [first, last, step] = [range[1], range[2], range[4] ?? "1"].map((n) => parseInteger(what, n, 0, 1 << 24));
    if (last < first) throw new UsageError(`${what}: the range ${part} runs backwards`, `Write ${last}-${first}`);
    const multiply = range[3] === "*";
    if (multiply ? step < 2 || first < 1 : step < 1) throw new UsageError(`${what}: the range ${part} never ends`);
    for (let n = first; n <= last && out.length <= LIST_MAX; n = multiply ? n * step : n + step) out.push(n);
  }
  if (out.length > LIST_MAX) throw new UsageError(`${what} names more than ${LIST_MAX} numbers`);
  return out;
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Sample standard deviation; 0 for one value, as llama-bench has it. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const average = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - average) ** 2, 0) / (values.length - 1));
}

/** `pp512`, `tg128`, `pp512 @ d4096`. */
function testName({ prompt, generate, depth }: BenchTest): string {
  return (prompt > 0 ? `pp${prompt}` : `tg${generate}`) + (depth > 0 ? ` @ d${depth}` : "");
}

/** Token ids without meaning, the same in every run. */
function someIds(count: number, vocabSize: number): number[] {
  let state = 1;
  return Array.from({ length: count }, () => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0;
    return state % vocabSize;
  });
}

/** Runs a test once and returns nanoseconds. Sampling and tokenising are not part of it, nor is filling the depth. */
async function runOnce(
  model: LoadedModel,
  { prompt, generate, depth }: BenchTest,
  profiler?: Profiler,
): Promise<number> {
  const ids = someIds(depth + prompt + generate, Math.min(model.tokenizer.vocabSize, 1000));
  model.clearCache();
  if (depth > 0) await model.forward(ids.slice(0, depth), 0);
  profiler?.resume();
  const startMs = performance.now();
  if (prompt > 0) await model.forward(ids.slice(depth, depth + prompt), depth);
  for (let i = depth + prompt; i < ids.length; i++) await model.forward([ids[i]], i);
  const ns = Math.round((performance.now() - startMs) * 1e6);
  profiler?.pause();
  return ns;
}

const bytesText = (bytes: number) => bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : formatMiB(bytes, 2);
const countText = (count: number) => count >= 1e9 ? `${(count / 1e9).toFixed(2)} B` : `${(count / 1e6).toFixed(2)} M`;

/** Widths as llama-bench prints them. */
const COLUMNS: readonly Column[] = [
  { name: "model", width: 30 },
  { name: "size", width: 10, right: true },
  { name: "params", width: 10, right: true },
  { name: "backend", width: 14 },
  { name: "threads", width: 7, right: true },
  { name: "test", width: 15, right: true },
  { name: "t/s", width: 20, right: true },
];

function markdownRow(row: BenchRow): string {
  return tableRow(COLUMNS, [
    row.model_type,
    bytesText(row.model_size),
    countText(row.model_n_params),
    row.backends,
    String(row.n_threads),
    testName({ prompt: row.n_prompt, generate: row.n_gen, depth: row.n_depth }),
    `${row.avg_ts.toFixed(2)} ± ${row.stddev_ts.toFixed(2)}`,
  ]);
}

/** What activations took in a test. */
function activationText({ n_prompt, n_gen, n_depth, activation_bytes }: BenchRow): string {
  const name = testName({ prompt: n_prompt, generate: n_gen, depth: n_depth });
  return `${name}: ${formatMiB(activation_bytes, 2)} of activations`;
}

/** The profile of a test below its name. */
function profileText({ profile, n_prompt, n_gen, n_depth, samples_ns }: BenchRow): string {
  if (profile === undefined) return "";
  const title = testName({ prompt: n_prompt, generate: n_gen, depth: n_depth });
  const programs = profile.programs.map((program) => `${programText(program)}\n`).join("");
  return `\n${title}\n${programs}\n${profileTable(profile, samples_ns.length)}\n`;
}

interface BenchPlan {
  fields: RunFields;
  repetitions: number;
  warmUp: boolean;
  profiler: (() => Profiler) | undefined;
  watchActivations: (model: LoadedModel) => () => number;
}

/** Measures one test: a warm-up, then the repetitions. */
async function measure(model: LoadedModel, test: BenchTest, plan: BenchPlan): Promise<BenchRow> {
  if (plan.warmUp) await runOnce(model, { ...test, generate: Math.min(test.generate, 1) });
  const testTime = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  const samples: number[] = [];
  const profiler = plan.profiler?.();
  const activationBytes = plan.watchActivations(model);
  for (let i = 0; i < plan.repetitions; i++) samples.push(await runOnce(model, test, profiler));
  const speeds = samples.map((ns) => (test.prompt + test.generate) / ns * 1e9);
  return {
    ...plan.fields,
    n_prompt: test.prompt,
    n_gen: test.generate,
    n_depth: test.depth,
    test_time: testTime,
    avg_ns: Math.round(mean(samples)),
    stddev_ns: Math.round(standardDeviation(samples)),
    avg_ts: mean(speeds),
    stddev_ts: standardDeviation(speeds),
    samples_ns: samples,
    samples_ts: speeds,
    activation_bytes: activationBytes(),
    profile: profiler?.result(samples.reduce((sum, ns) => sum + ns, 0)),
  };
}

/** The context that the tests need, or the one that was asked for. Throws UsageError when they need more. */
function contextFor(tests: readonly BenchTest[], asked: number | undefined, limit: number): number {
  const needed = Math.max(...tests.map((test) => test.prompt + test.generate + test.depth));
  const context = asked ?? Math.min(needed, limit);
  if (needed <= context) return context;
  throw new UsageError(
    `a test takes ${needed} tokens and the context holds ${context}`,
    asked === undefined ? "Take a smaller -p, -n or -d" : `Take a larger --context, up to ${limit}`,
  );
}

export const benchCommand: Command = {
  name: "bench",
  usage: "-m MODEL [-p 512] [-n 128] [-r 5] [-o md|json] [--profile]",
  doc: "measure tokens per second, as llama-bench does",
  details:
    "Lists and ranges make several tests: -p 128,512, -p 2-4 (2,3,4), -p 1-9+4 (1,5,9), -p 16-64*2 (16,32,64). A\n" +
    "test of 0 tokens, as in -n 0, is left out. Loading, tokenising and sampling are not measured; one warm-up goes\n" +
    "before each test. --profile tells for each test where the time goes; GB/s and GOPS count what an op has to\n" +
    "touch and to compute, however often its kernel comes back to the same bytes. Activations come from caches, so\n" +
    "that rope, say, may show more than memory gives. Outside of ops are the call and, at least every 33 ms, the\n" +
    "way to another thread and back, with caches that the weights have just emptied.",
  options: [
    MODEL_OPTION,
    {
      name: "n-prompt",
      short: "p",
      value: "N",
      doc: "tokens of a prompt to run (default 512; a list or range makes several tests)",
    },
    { name: "n-gen", short: "n", value: "N", doc: "tokens to generate one by one (default 128; likewise)" },
    { name: "n-depth", short: "d", value: "N", doc: "tokens of context before each test (default 0; likewise)" },
    { name: "repetitions", short: "r", value: "N", doc: "times to run each test (default 5)" },
    { name: "output", short: "o", value: "FORM", doc: "md (default), json or jsonl" },
    { name: "no-warmup", doc: "no run before the measured ones" },
    { name: "profile", doc: "also time, GB/s, GOPS and share per op, and the arenas" },
    {
      name: "verbose",
      short: "v",
      doc: "tell the memory of activations, and each captured program with its arena, on stderr",
    },
    ...RUN_OPTIONS,
  ],
  async run({ options, host, program }) {
    const path = options.required("model", MODEL_HINT);
    const counts = (name: string, otherwise: number) => {
      const text = options.text(name);
      return text === undefined ? [otherwise] : parseCounts(`--${name}`, text);
    };
    const [prompts, generates, depths] = [counts("n-prompt", 512), counts("n-gen", 128), counts("n-depth", 0)];
    const repetitions = options.integer("repetitions", 1, 10_000) ?? 5;
    const form = options.oneOf("output", ["md", "json", "jsonl"]) ?? "md";
    const tests: BenchTest[] = depths.flatMap((depth) => [
      ...prompts.filter((n) => n > 0).map((prompt) => ({ prompt, generate: 0, depth })),
      ...generates.filter((n) => n > 0).map((generate) => ({ prompt: 0, generate, depth })),
    ]);
    if (tests.length === 0) throw new UsageError("there is nothing to measure", "Give -p or -n a number above 0");
    const run = runOptions(options);
    options.exclude("profile", ["eager"], "A profile is of captured programs");
    options.exclude("profile", ["no-warmup"], "The warm-up captures the programs that are profiled");
    const summary = await program.engine.summarize(path, run);
    const context = contextFor(tests, run.context, summary.contextLimit);
    using model = await loadWithBar(host, program.engine, path, { ...run, context });
    const fields = runFields(path, summary, program.engine.describeRun(model));
    const programs = program.engine.programs(model);
    const profiler = options.has("profile") ? () => new Profiler(programs) : undefined;
    const watchActivations = (model: LoadedModel) => program.engine.watchActivations(model);
    const plan = { fields, repetitions, warmUp: !options.has("no-warmup"), profiler, watchActivations };
    const rows: BenchRow[] = [];
    if (form === "md") host.stdout.write(`${tableHead(COLUMNS)}\n`);
    await withBar(host, async (bar) => {
      for (const test of tests) {
        bar.update(testName(test), rows.length, tests.length);
        const row = await measure(model, test, plan);
        bar.done();
        if (form === "md") host.stdout.write(`${markdownRow(row)}\n`);
        else if (form === "jsonl") host.stdout.write(`${JSON.stringify(row)}\n`);
        rows.push(row);
      }
    });
    if (form === "md") host.stdout.write(`\nbuild: ${VERSION} (0)\n${rows.map(profileText).join("")}`);
    if (form === "json") host.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
    if (options.has("verbose")) {
      for (const row of rows) host.stderr.write(`${activationText(row)}\n`);
      for (const entry of programs) host.stderr.write(`${programText(describeProgram(...entry))}\n`);
    }
  },
};
