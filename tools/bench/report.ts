/** The tables of `bench:peers` in Markdown. */
import { markdownTable } from "../../packages/apps/src/markdown_table.ts";
import type { Roofline } from "./roofline.ts";
import type { Machine, Peaks } from "./machine.ts";
import { type EngineResult, modelName, type ModelResult, type Results, type Samples } from "./results.ts";

const right = (name: string) => ({ name, right: true });
const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
const percent = (share: number) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

/** The median and half of what lies between the smallest and the largest value. */
const spread = ({ median, min, max }: Samples, digits: number) =>
  `${median.toFixed(digits)} ± ${((max - min) / 2).toFixed(digits)}`;

/** Ours over theirs, or theirs over ours where less is better; nothing in our own row. */
function ratio(ours: number | undefined, theirs: number): string {
  return ours === undefined ? "" : (ours / theirs).toFixed(2);
}

const oursIn = ({ engines }: ModelResult): EngineResult | undefined => engines.find(({ engine }) => engine === "mllm");

/** llama-bench's columns with the engine as the backend; t/s are medians. */
export function speedTable(models: readonly ModelResult[], machine: Machine): string {
  const rows = models.flatMap((model) => {
    const ours = oursIn(model);
    const tests = Object.keys(model.engines[0].speeds);
    return tests.flatMap((test) =>
      model.engines.map((result) => [
        modelName(model, machine),
        `${mib(model.size_bytes)} MiB`,
        `${(model.parameters / 1e6).toFixed(0)} M`,
        result.engine,
        String(model.peaks.threads),
        test,
        spread(result.speeds[test], 2),
        result === ours ? "" : ratio(ours?.speeds[test].median, result.speeds[test].median),
      ])
    );
  });
  const columns = ["model", "size", "params", "backend", "threads", "test", "t/s", "mllm ÷ it"];
  return markdownTable(columns.map((name, i) => i === 0 || i === 3 ? { name } : right(name)), rows);
}

/** Load to the first token, and resident memory then and at most. */
export function loadTable(models: readonly ModelResult[], machine: Machine): string {
  const rows = models.flatMap((model) => {
    const ours = oursIn(model);
    return model.engines.map((result) => {
      const { load_to_first_token_ms: load, loaded_bytes: loaded, peak_bytes: peak, needed_bytes: needed } = result;
      return [
        modelName(model, machine),
        result.engine,
        spread(load, 0),
        result === ours || ours === undefined ? "" : ratio(load.median, ours.load_to_first_token_ms.median),
        needed === undefined ? "" : mib(needed),
        loaded === undefined ? "" : mib(loaded.median),
        mib(peak.median),
        result === ours || ours === undefined ? "" : ratio(peak.median, ours.peak_bytes.median),
      ];
    });
  });
  const columns = ["model", "backend", "first token, ms", "× ours"];
  const memory = ["weights + KV, MiB", "memory then, MiB", "peak memory, MiB", "× ours"];
  return markdownTable([...columns, ...memory].map((name, i) => i < 2 ? { name } : right(name)), rows);
}

/** One test against the machine's limits; ops below half a percent of the time are left out. */
export function rooflineTable({ ops, ...all }: Roofline): string {
  const row = (
    op: string,
    kind: string,
    share: number,
    values: Pick<Roofline, "us_per_token" | "memory_bytes_per_token" | "operations_per_token" | "of_limit">,
  ) => [
    op,
    kind,
    percent(share),
    values.us_per_token.toFixed(1),
    (values.memory_bytes_per_token / 1e6).toFixed(2),
    (values.operations_per_token / 1e6).toFixed(2),
    (values.memory_bytes_per_token / values.us_per_token / 1e3).toFixed(1),
    (values.operations_per_token / values.us_per_token / 1e3).toFixed(1),
    values.of_limit > 0 ? percent(values.of_limit) : "",
  ];
  const columns = ["op", "kind", "share", "µs", "memory MB", "Mop", "GB/s", "GOPS", "of its limit"];
  return markdownTable(columns.map((name, i) => i < 2 ? { name } : right(name)), [
    ...ops.filter(({ share }) => share >= 0.005).map((op) => row(op.op, op.kind, op.share, op)),
    row("all", "", 1, all),
  ]);
}

function rooflineText(roofline: Roofline): string {
  const { test, of_bandwidth, of_int8_peak, of_limit, ops } = roofline;
  const units = ops.some(({ peak }) => peak === "tiles_bf16") ? "the tiles' peaks" : "the integer peak";
  return `${test}, per token: ${percent(of_bandwidth)} of the read bandwidth, ${percent(of_int8_peak)} of ${units}, ` +
    `${percent(of_limit)} of the limit.\n\n${rooflineTable(roofline)}`;
}

function peaksText(peaks: Peaks): string {
  const { level, threads, read_gb_per_s, int8_gops, f32_gflops, tiles_bf16_gops = 0, tiles_int8_gops = 0 } = peaks;
  const tiles = tiles_bf16_gops === 0
    ? ""
    : `; on tiles ${tiles_bf16_gops.toFixed(0)} GFLOPS bf16, ${tiles_int8_gops.toFixed(0)} GOPS int8`;
  return `${level}, ${threads} threads: ${read_gb_per_s.toFixed(1)} GB/s read, ${int8_gops.toFixed(0)} GOPS int8, ` +
    `${f32_gflops.toFixed(0)} GFLOPS f32${tiles}`;
}

function machineText({ date, machine, models }: Results): string {
  const { cpu, levels, cores, memory_bytes, system, governor, versions } = machine;
  const clock = governor === null ? "" : `, governor ${governor}`;
  const numbers = Object.entries(versions).map(([name, text]) => `${name} ${text.replace(/^(v|Python )/, "")}`);
  const lines = [
    `${cpu}, ${cores} cores, ${levels.join(" ")}, ${(memory_bytes / 2 ** 30).toFixed(0)} GiB, ${system}${clock}`,
    ...new Set(models.map(({ peaks }) => `peaks at ${peaksText(peaks)}`)),
    `${date.slice(0, 10)}; ${numbers.join(", ")}`,
  ];
  return lines.map((text) => `- ${text}`).join("\n");
}

/** Versions of the engines, once each. */
function engineText(models: readonly ModelResult[]): string {
  const lines = new Set(
    models.flatMap(({ engines }) =>
      engines.map(({ engine, version, detail }) => `- ${engine} ${version}${detail === "" ? "" : `: ${detail}`}`)
    ),
  );
  return [...lines].join("\n");
}

/** All of it. */
export function reportText(results: Results): string {
  const { models } = results;
  const parts = [
    machineText(results),
    engineText(models),
    speedTable(models, results.machine),
    loadTable(models, results.machine),
    ...models.flatMap((model) => [
      `### ${modelName(model, results.machine)} against the machine's limits`,
      ...model.roofline.map(rooflineText),
    ]),
  ];
  return `${parts.join("\n\n")}\n`;
}

const START = "<!-- results: written by deno task bench:peers -->";
const END = "<!-- end of results -->";

/** A document with the results between its two marks replaced. Throws when it lacks them. */
export function replaceResults(document: string, report: string): string {
  const [start, end] = [document.indexOf(START), document.indexOf(END)];
  if (start < 0 || end < start) throw new Error(`the document has no place for results between ${START} and ${END}`);
  return `${document.slice(0, start + START.length)}\n\n${report}\n${document.slice(end)}`;
}
