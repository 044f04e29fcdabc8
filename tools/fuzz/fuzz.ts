/**
 * Feeds mutated files to every parser: each has to end in success or an MllmError, in bounded time and memory.
 *
 *     deno task fuzz [--seed N] [--count N] [--parser NAME] [--case N] [--keep DIRECTORY]
 */
import { formatMiB } from "@mllm/core";
import { targets } from "./targets.ts";
import { type Job, makeInput, type Report, runCase } from "./cases.ts";

/** What to run. */
export interface FuzzOptions {
  seed: number;
  /** Cases of all parsers together. */
  count: number;
  /** Only this one. */
  parser?: string;
  /** Directory that failing inputs are kept in. */
  keep: string;
  log?: (line: string) => void;
}

/** A case that ended badly. */
export interface Failure {
  parser: string;
  case: number;
  what: string;
  /** The input. */
  path: string;
}

const hangMs = 30_000;
const hangsMax = 5;

/** Runs the cases in a worker; a hang ends it. Returns the failures. */
export async function fuzz(options: FuzzOptions): Promise<Failure[]> {
  const { seed, count, parser, keep, log = () => {} } = options;
  const chosen = [...targets.keys()].filter((i) => parser === undefined || targets[i].name === parser);
  const each = Math.ceil(count / chosen.length);
  const failures: Failure[] = [];
  const record = (target: number, index: number, what: string) => {
    const path = `${keep}/${targets[target].name}-${seed}-${index}.bin`;
    Deno.writeFileSync(path, makeInput(targets[target], seed, index));
    failures.push({ parser: targets[target].name, case: index, what, path });
    log(
      `FAILED ${targets[target].name} --seed ${seed} --case ${index} (${path})\n  ${
        what.split("\n").slice(0, 6).join("\n  ")
      }`,
    );
  };
  const scratch = Deno.makeTempDirSync({ prefix: "mllm-fuzz-" });
  try {
    let ranges = chosen.map((target) => ({ target, from: 0, to: each }));
    for (let hangs = 0; ranges.length > 0 && hangs < hangsMax; hangs++) {
      const hung = await runWorker({ seed, ranges, scratch, now: new SharedArrayBuffer(8) }, (report) => {
        if (report.kind === "failure") record(report.target, report.case, report.what);
        else if (report.kind === "done") log(describe(report));
      });
      if (!hung) break;
      record(hung.target, hung.case, `did not end within ${hangMs} ms`);
      // Goes on behind the case that hung.
      ranges = ranges.filter(({ target }) => target >= hung.target);
      ranges[0] = { ...ranges[0], from: hung.case + 1 };
    }
  } finally {
    Deno.removeSync(scratch, { recursive: true });
  }
  return failures;
}

function describe(report: Extract<Report, { kind: "done" }>): string {
  const { cases, accepted, slowestMs, slowest, bytesMax } = report;
  const name = targets[report.target].name.padEnd(24);
  return `${name}${cases} cases, ${accepted} accepted, slowest ${slowestMs.toFixed(0)} ms (case ${slowest}), ` +
    `largest growth ${formatMiB(bytesMax, 0)}`;
}

/** Returns where it hung, or undefined when all ran. */
function runWorker(
  job: Job,
  onReport: (report: Report) => void,
): Promise<{ target: number; case: number } | undefined> {
  const now = new Int32Array(job.now);
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    let last = -1;
    let since = performance.now();
    const stop = (result?: { target: number; case: number }) => {
      clearInterval(watchdog);
      worker.terminate();
      resolve(result);
    };
    const watchdog = setInterval(() => {
      const current = Atomics.load(now, 0) * 2 ** 24 + Atomics.load(now, 1);
      if (current !== last) [last, since] = [current, performance.now()];
      else if (performance.now() - since > hangMs) stop({ target: Atomics.load(now, 0), case: Atomics.load(now, 1) });
    }, 250);
    worker.onmessage = ({ data }: MessageEvent<Report>) => {
      if (data.kind === "end") stop();
      else onReport(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      clearInterval(watchdog);
      worker.terminate();
      reject(new Error(`the fuzz worker failed: ${event.message}`));
    };
    worker.postMessage(job);
  });
}

const usage = `deno task fuzz [--seed N] [--count N] [--parser NAME] [--case N] [--keep DIRECTORY]
  parsers: ${targets.map(({ name }) => name).join(", ")}`;

async function main(args: readonly string[]): Promise<number> {
  const options = new Map<string, string>();
  for (let i = 0; i < args.length; i += 2) {
    if (!["--seed", "--count", "--parser", "--case", "--keep"].includes(args[i]) || args[i + 1] === undefined) {
      console.error(usage);
      return 2;
    }
    options.set(args[i], args[i + 1]);
  }
  const parser = options.get("--parser");
  const number = (name: string, otherwise: number) => Number(options.get(name) ?? otherwise);
  const [seed, count, single] = [number("--seed", 1), number("--count", 120_000), number("--case", -1)];
  if (![seed, count, single].every(Number.isSafeInteger) || (parser && !targets.some(({ name }) => name === parser))) {
    console.error(usage);
    return 2;
  }
  const keep = options.get("--keep") ?? Deno.makeTempDirSync({ prefix: "mllm-fuzz-failures-" });
  Deno.mkdirSync(keep, { recursive: true });
  if (single >= 0) return await runSingle(parser, seed, single, keep);
  const start = performance.now();
  const failures = await fuzz({ seed, count, parser, keep, log: console.log });
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`${failures.length} failures, seed ${seed}, ${seconds} s`);
  if (failures.length === 0 && !options.has("--keep")) Deno.removeSync(keep);
  return failures.length === 0 ? 0 : 1;
}

/** Runs one case again, in this thread, and shows what happens. */
async function runSingle(parser: string | undefined, seed: number, index: number, keep: string): Promise<number> {
  const target = targets.find(({ name }) => name === parser);
  if (!target) {
    console.error(usage);
    return 2;
  }
  const input = makeInput(target, seed, index);
  Deno.writeFileSync(`${keep}/input.bin`, input);
  console.log(`${input.length} bytes: ${keep}/input.bin`);
  const start = performance.now();
  const outcome = await runCase(target, input, keep);
  console.log(outcome, `${(performance.now() - start).toFixed(0)} ms`);
  return typeof outcome === "string" ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
