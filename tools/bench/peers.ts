/**
 * `deno task bench:peers MODEL.gguf …`: this engine and others on the same weights in one run. Every repetition runs
 * each engine once, in turn, as a process of its own, so that a drift of the machine hits all of them. Prints tables
 * (docs/benchmarks.md says what they mean); writes JSON and charts where it is told to.
 */
import { parseArgs } from "node:util";
import { repositoryRoot } from "../workspace.ts";
import type { BenchRow } from "../../packages/apps/src/cli/bench.ts";
import { rooflineChart, speedChart } from "./chart.ts";
import { type EngineOptions, engines, type PeerRun, runEngine } from "./engines.ts";
import { describeMachine, meanPeaks, measurePeaks } from "./machine.ts";
import { output } from "./process.ts";
import { replaceResults, reportText } from "./report.ts";
import { engineResult, mergeResults, type ModelResult, type Results } from "./results.ts";
import { rooflineOf } from "./roofline.ts";

const usage = `deno task bench:peers MODEL.gguf … [options]
  -p LIST            tokens of prompts (default 512)
  -n LIST            tokens to generate (default 128)
  -r N               repetitions (default 3)
  -t N               threads (default 2)
  --engines LIST     of ${Object.keys(engines).join(", ")} (default mllm,node-llama-cpp,mnn)
  --level LEVEL      hold mllm and llama.cpp to an ISA level, for example avx2
  --mnn-model DIR    a model in MNN's format instead of a conversion of the one file
  -o FILE.json       write the results; those of other models in the file are kept
  --docs             write docs/benchmarks.json, the charts, and the tables of docs/benchmarks.md`;

const root = repositoryRoot();

interface Plan extends EngineOptions {
  engines: string[];
  prompts: number[];
  generates: number[];
  repetitions: number;
  threads: number;
}

/** Whole numbers of a comma list. Throws RangeError for anything else. */
export function parseList(name: string, list: string): number[] {
  return list.split(",").map((part) => {
    if (!/^[1-9]\d{0,6}$/.test(part)) throw new RangeError(`${name} takes whole numbers above 0, not "${part}"`);
    return Number(part);
  });
}

/** The per-op profile of this engine, with the facts about the model that its rows carry. */
async function profileRows(model: string, plan: Plan): Promise<BenchRow[]> {
  const args = ["run", "-q", "--no-prompt", "-P=apps", "packages/apps/mllm.ts", "bench", "-m", model, "-o", "json"];
  args.push("--profile", "-r", "2", "-p", plan.prompts.join(","), "-n", plan.generates.join(","));
  args.push("--threads", String(plan.threads));
  if (plan.level !== undefined) args.push("--backend", `x86:${plan.level}`);
  return JSON.parse(await output(Deno.execPath(), args, root));
}

async function compare(model: string, plan: Plan, machineLevel: string): Promise<ModelResult> {
  const name = model.replace(/^.*[\\/]/, "");
  const launches = [];
  for (const key of plan.engines) {
    launches.push({
      engine: engines[key].name,
      launch: await engines[key].prepare(model, plan),
      runs: [] as PeerRun[],
    });
  }
  const { prompts, generates, threads, level } = plan;
  for (let i = 0; i < plan.repetitions; i++) {
    for (const { engine, launch, runs } of launches) {
      console.error(`bench:peers: ${name}, ${engine}, ${i + 1} of ${plan.repetitions}`);
      runs.push(await runEngine(launch({ model, prompts, generates, threads, level })));
    }
  }
  // A machine that is shared gives more or less from one minute to the next: what is held against it runs in between.
  const before = await measurePeaks(level ?? machineLevel, threads);
  const rows = await profileRows(model, plan);
  const peaks = meanPeaks(before, await measurePeaks(level ?? machineLevel, threads));
  const roofline = rows.map((row) => {
    const test = row.n_prompt > 0 ? `pp${row.n_prompt}` : `tg${row.n_gen}`;
    const tokens = (row.n_prompt + row.n_gen) * row.samples_ns.length;
    return rooflineOf(test, row.profile!, tokens, peaks);
  });
  const [{ model_type, model_size, model_n_params }] = rows;
  return {
    model: name,
    type: model_type,
    size_bytes: model_size,
    parameters: model_n_params,
    repetitions: plan.repetitions,
    peaks,
    engines: launches.map(({ engine, runs }) => engineResult(engine, runs)),
    roofline,
  };
}

async function readResults(path: string): Promise<Results | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function writeResults(path: string, results: Results): Promise<Results> {
  const merged = mergeResults(await readResults(path), results);
  await Deno.writeTextFile(path, `${JSON.stringify(merged, null, 1)}\n`);
  return merged;
}

/** The document, its data and its charts. */
async function writeDocs(results: Results): Promise<void> {
  const folder = `${root}/docs`;
  const merged = await writeResults(`${folder}/benchmarks.json`, results);
  const document = `${folder}/benchmarks.md`;
  const charts = "![Tokens per second](benchmarks.svg)\n\n![Roofline](roofline.svg)\n\n";
  await Deno.writeTextFile(document, replaceResults(await Deno.readTextFile(document), charts + reportText(merged)));
  await Deno.writeTextFile(`${folder}/benchmarks.svg`, speedChart(merged.models, merged.machine));
  await output(Deno.execPath(), ["fmt", "-q", document, `${folder}/benchmarks.json`], root);
  await Deno.writeTextFile(`${folder}/roofline.svg`, rooflineChart(merged.models[0], merged.machine));
}

function parse(args: string[]): { models: string[]; plan: Plan; json?: string; docs: boolean } {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      p: { type: "string", short: "p", default: "512" },
      n: { type: "string", short: "n", default: "128" },
      r: { type: "string", short: "r", default: "3" },
      t: { type: "string", short: "t", default: "2" },
      engines: { type: "string", default: "mllm,node-llama-cpp,mnn" },
      level: { type: "string" },
      "mnn-model": { type: "string" },
      o: { type: "string", short: "o" },
      docs: { type: "boolean", default: false },
    },
  });
  const names = values.engines.split(",");
  const unknown = names.find((name) => !Object.hasOwn(engines, name));
  if (unknown !== undefined) throw new RangeError(`there is no engine "${unknown}"`);
  if (positionals.length === 0) throw new RangeError("name at least one GGUF file");
  const [repetitions] = parseList("-r", values.r);
  const [threads] = parseList("-t", values.t);
  const prompts = parseList("-p", values.p);
  const generates = parseList("-n", values.n);
  const { level, "mnn-model": mnnModel, o: json, docs } = values;
  return {
    models: positionals,
    plan: { engines: names, prompts, generates, repetitions, threads, level, mnnModel },
    json,
    docs,
  };
}

async function main(args: string[]): Promise<number> {
  let parsed;
  try {
    parsed = parse(args);
  } catch (error) {
    console.error(`bench:peers: ${(error as Error).message}\n${usage}`);
    return 2;
  }
  const { plan, json, docs } = parsed;
  const models: string[] = [];
  for (const path of parsed.models) {
    try {
      models.push(Deno.realPathSync(path));
    } catch (error) {
      console.error(`bench:peers: ${path} can't be read: ${(error as Error).message}`);
      return 1;
    }
  }
  const machine = await describeMachine();
  const results: Results = { date: new Date().toISOString(), machine, models: [] };
  for (const model of models) results.models.push(await compare(model, plan, machine.levels.at(-1)!));
  console.log(reportText(results));
  if (json !== undefined) await writeResults(json, results);
  if (docs) await writeDocs(results);
  return 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
