/** `mllm bench`: tokens per second, in the columns and JSON rows of llama-bench. */
import { formatMiB } from "@mllm/core";
import { loadWithBar } from "../chat/main.ts";
import type { LoadedModel, ModelSummary } from "../engine.ts";
import { parseInteger, UsageError } from "../options.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { type Command, MODEL_HINT } from "./command.ts";

/** One line of the table, named as llama-bench names its fields (tools/llama-bench of llama.cpp). */
export interface BenchRow {
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
}

/** What is measured: tokens of a prompt or generated ones, after `depth` tokens of context. */
export interface BenchTest {
  prompt: number;
  generate: number;
  depth: number;
}

const VERSION = "0.1.0";
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

/** Runs a test once and returns nanoseconds. Sampling and tokenising are not part of it. */
async function runOnce(model: LoadedModel, { prompt, generate, depth }: BenchTest): Promise<number> {
  const ids = someIds(depth + prompt + generate, Math.min(model.tokenizer.vocabSize, 1000));
  model.clearCache();
  if (depth > 0) await model.forward(ids.slice(0, depth), 0);
  const startMs = performance.now();
  if (prompt > 0) await model.forward(ids.slice(depth, depth + prompt), depth);
  for (let i = depth + prompt; i < ids.length; i++) await model.forward([ids[i]], i);
  return Math.round((performance.now() - startMs) * 1e6);
}

const bytesText = (bytes: number) => bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : formatMiB(bytes, 2);
const countText = (count: number) => count >= 1e9 ? `${(count / 1e9).toFixed(2)} B` : `${(count / 1e6).toFixed(2)} M`;

const COLUMNS = ["model", "size", "params", "backend", "threads", "test", "t/s"] as const;

/** Widths as llama-bench prints them; a longer cell makes its row longer. */
const WIDTHS: Record<typeof COLUMNS[number], number> = {
  model: 30,
  size: 10,
  params: 10,
  backend: 14,
  threads: 7,
  test: 15,
  "t/s": 20,
};

function isRight(column: typeof COLUMNS[number]): boolean {
  return column !== "model" && column !== "backend";
}

function markdownHead(): string {
  const cells = COLUMNS.map((column) =>
    isRight(column) ? column.padStart(WIDTHS[column]) : column.padEnd(WIDTHS[column])
  );
  const rule = COLUMNS.map((column) =>
    isRight(column) ? `${"-".repeat(WIDTHS[column] - 1)}:` : "-".repeat(WIDTHS[column])
  );
  return `| ${cells.join(" | ")} |\n| ${rule.join(" | ")} |`;
}

function markdownRow(row: BenchRow): string {
  const test = { prompt: row.n_prompt, generate: row.n_gen, depth: row.n_depth };
  const cells: Record<typeof COLUMNS[number], string> = {
    model: row.model_type,
    size: bytesText(row.model_size),
    params: countText(row.model_n_params),
    backend: row.backends,
    threads: String(row.n_threads),
    test: testName(test),
    "t/s": `${row.avg_ts.toFixed(2)} ± ${row.stddev_ts.toFixed(2)}`,
  };
  const padded = COLUMNS.map((column) =>
    isRight(column) ? cells[column].padStart(WIDTHS[column]) : cells[column].padEnd(WIDTHS[column])
  );
  return `| ${padded.join(" | ")} |`;
}

interface BenchPlan {
  path: string;
  repetitions: number;
  warmUp: boolean;
  summary: ModelSummary;
  describe: { backend: string; level: string; threads: number; cpu: string; chunk: number; kvDtype: string };
}

/** Measures one test: a warm-up, then the repetitions. */
async function measure(model: LoadedModel, test: BenchTest, plan: BenchPlan): Promise<BenchRow> {
  if (plan.warmUp) await runOnce(model, { ...test, generate: Math.min(test.generate, 1) });
  const testTime = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  const samples: number[] = [];
  for (let i = 0; i < plan.repetitions; i++) samples.push(await runOnce(model, test));
  const speeds = samples.map((ns) => (test.prompt + test.generate) / ns * 1e9);
  const { describe, summary } = plan;
  return {
    build_commit: VERSION,
    build_number: 0,
    cpu_info: describe.cpu,
    gpu_info: "",
    backends: `${describe.backend}:${describe.level}`,
    model_filename: plan.path,
    model_type: summary.type,
    model_size: summary.fileBytes,
    model_n_params: summary.parameters,
    n_batch: describe.chunk,
    n_ubatch: describe.chunk,
    n_threads: describe.threads,
    type_k: describe.kvDtype,
    type_v: describe.kvDtype,
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
  };
}

export const benchCommand: Command = {
  name: "bench",
  usage: "-m MODEL [-p 512] [-n 128] [-r 5] [-o md|json]",
  doc: "measure tokens per second, as llama-bench does",
  details:
    "Lists make several tests: -p 128,512 -n 0. A test of 0 tokens is left out. Loading, tokenising and sampling\n" +
    "are not measured; one warm-up goes before each test.",
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
    const context = run.context ?? Math.max(...tests.map((test) => test.prompt + test.generate + test.depth));
    const summary = await program.engine.summarize(path, { ...run, context });
    using model = await loadWithBar(host, program.engine, path, { ...run, context });
    const describe = program.engine.describeRun(model);
    const plan = { path, repetitions, warmUp: !options.has("no-warmup"), summary, describe };
    const rows: BenchRow[] = [];
    if (form === "md") host.stdout.write(`${markdownHead()}\n`);
    for (const test of tests) {
      if (host.stderr.isTerminal) host.stderr.write(`\r\x1b[K${testName(test)} …`);
      const row = await measure(model, test, plan);
      if (host.stderr.isTerminal) host.stderr.write("\r\x1b[K");
      if (form === "md") host.stdout.write(`${markdownRow(row)}\n`);
      else if (form === "jsonl") host.stdout.write(`${JSON.stringify(row)}\n`);
      rows.push(row);
    }
    if (form === "md") host.stdout.write(`\nbuild: ${VERSION} (0)\n`);
    if (form === "json") host.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
  },
};
