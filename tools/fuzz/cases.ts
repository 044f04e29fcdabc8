import process from "node:process";
import { formatMiB } from "@mllm/core";
import { Random } from "../random_model/random.ts";
import { isCleanRefusal, type Target, targets } from "./targets.ts";

/** Processor time of one case: wall time would blame a busy machine on the parser. */
export const caseMsMax = 3000;
/** Growth of the process in one case. */
export const caseBytesMax = 512 * 2 ** 20;
/** After so many failures of one parser the next one is tried. */
const failuresMax = 8;

/** What the worker is to do. */
export interface Job {
  seed: number;
  /** Index into `targets` and the cases to run: from, to (exclusive). */
  ranges: { target: number; from: number; to: number }[];
  scratch: string;
  /** Int32Array [target, case], written before each case for the watchdog. */
  now: SharedArrayBuffer;
}

/** What it reports. */
export type Report =
  | { kind: "failure"; target: number; case: number; what: string }
  | {
    kind: "done";
    target: number;
    cases: number;
    accepted: number;
    slowestMs: number;
    slowest: number;
    bytesMax: number;
  }
  | { kind: "end" };

/** The input of one case: depends on the seed, the target's name and the number only. */
export function makeInput(target: Target, seed: number, index: number): Uint8Array {
  let stream = index;
  for (const character of target.name) stream = (Math.imul(stream, 31) + character.charCodeAt(0)) | 0;
  return target.make(new Random(seed, stream));
}

/** Runs one case. Returns whether the input was accepted, or what is wrong. */
export async function runCase(target: Target, input: Uint8Array, scratch: string): Promise<boolean | string> {
  try {
    await target.run(input, scratch);
    return true;
  } catch (error) {
    if (isCleanRefusal(error)) return false;
    return error instanceof Error ? `${error.name}: ${error.stack ?? error.message}` : `threw ${String(error)}`;
  }
}

/** Runs a range of cases and posts what is found. */
export async function runRange(
  job: Job,
  { target, from, to }: Job["ranges"][number],
  post: (report: Report) => void,
): Promise<void> {
  const now = new Int32Array(job.now);
  const scratch = `${job.scratch}/${target}`;
  Deno.mkdirSync(scratch, { recursive: true });
  const done = { accepted: 0, slowestMs: 0, slowest: from, bytesMax: 0 };
  let failures = 0;
  let before = memory();
  for (let index = from; index < to; index++) {
    Atomics.store(now, 0, target);
    Atomics.store(now, 1, index);
    const input = makeInput(targets[target], job.seed, index);
    const start = processorMs();
    const outcome = await runCase(targets[target], input, scratch);
    const ms = processorMs() - start;
    const after = memory();
    if (ms > done.slowestMs) Object.assign(done, { slowestMs: ms, slowest: index });
    done.bytesMax = Math.max(done.bytesMax, after - before);
    if (outcome === true) done.accepted++;
    const fail = (what: string) => {
      failures++;
      post({ kind: "failure", target, case: index, what });
    };
    if (typeof outcome === "string") fail(outcome);
    else if (ms > caseMsMax) fail(`took ${Math.round(ms)} ms, more than ${caseMsMax}`);
    else if (after - before > caseBytesMax) fail(`took ${formatMiB(after - before, 0)}`);
    if (failures >= failuresMax) return post({ kind: "done", target, cases: index + 1 - from, ...done });
    before = after;
  }
  post({ kind: "done", target, cases: to - from, ...done });
}

function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Memory of the process: what stays resident, and buffers that are allocated but not touched yet. */
function memory(): number {
  const { rss, external } = Deno.memoryUsage();
  return Math.max(rss, external);
}
