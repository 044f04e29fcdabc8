/**
 * What `mllm tune` found out, as JSON: tables of measured kernel choices, each for one machine, level, thread number and
 * build of the kernels. A table counts only where all of these agree.
 */
import {
  decodeLinearVariant,
  type DType,
  dtypes,
  encodeLinearVariant,
  type KernelChoice,
  type KernelQuery,
  type KernelRow,
  type KernelSelector,
  type LinearVariant,
  MllmError,
  type OpName,
  opTable,
} from "@mllm/core";

/** Raised when the file changes its meaning. */
export const TUNED_FORMAT = 2;

/** What a table was measured with. */
export interface TunedKey {
  /** Name of the backend. */
  backend: string;
  /** The CPU as it names itself. */
  cpu: string;
  /** ISA level. */
  level: string;
  /** Threads of the pool. */
  threads: number;
  /** SHA-256 of the kernel library. */
  library: string;
}

/**
 * The comparisons that tune makes; each looks at other fields of a choice: threads, runs of panels and prefetching of a
 * decode step, and of a prompt the bound between GEMV and GEMM, the rows of a register tile, the threads.
 */
export type Stage = typeof stages[number];
const stages = ["decode", "few rows", "prefill", "threads"] as const;

/** A choice other than the default; what is absent stays as it is there. */
export interface Candidate {
  /** What `linear` is asked for. */
  variant?: LinearVariant;
  /** Threads at most. */
  threads?: number;
}

/** The best that was found for one kind of command in one comparison; no candidate where the default stays. */
export interface Measurement extends Candidate {
  stage: Stage;
  op: OpName;
  dtype: DType;
  x: DType;
  n: number;
  k?: number;
  /** How many times as fast as the default; 1 where that stays. */
  gain: number;
}

export interface TunedTable {
  key: TunedKey;
  /** Day of the last measurement, `2026-11-25`. */
  day: string;
  measurements: Measurement[];
}

/** The kind of command that a measurement is for: equal for all that one row of the selector would take. */
export function kindKey({ op, dtype, x, n, k }: Pick<KernelQuery, "op" | "dtype" | "x" | "n" | "k">): string {
  return `${op} ${dtype} ${x} ${n} ${k ?? "-"}`;
}

/** The key of a measurement within its table. */
export function measurementKey(one: Pick<Measurement, "stage" | "op" | "dtype" | "x" | "n" | "k">): string {
  return `${one.stage}: ${kindKey(one)}`;
}

/** The default with what candidates change. */
export function changedChoice(
  standard: Pick<KernelChoice, "variant" | "threads">,
  ...candidates: readonly Candidate[]
): { variant: number; threads: number } {
  let { variant, threads } = standard;
  for (const one of candidates) {
    threads = one.threads ?? threads;
    if (one.variant !== undefined) variant = encodeLinearVariant({ ...decodeLinearVariant(variant), ...one.variant });
  }
  return { variant, threads };
}

/** Tokens of a prompt: many, as when a program is captured for a chunk. */
const PROMPT_ROWS = 512;

const only = (size: number) => ({ min: size, max: size });

/**
 * The rows of the selector that a table stands for: one per kind and phase that is not best by default. `standard` has
 * the defaults.
 */
export function tunedRows({ key, day, measurements }: TunedTable, standard: KernelSelector): KernelRow[] {
  const kinds = new Map<string, Measurement[]>();
  for (const one of measurements) {
    if (one.variant === undefined && one.threads === undefined) continue;
    const id = `${one.stage === "decode"} ${kindKey(one)}`;
    kinds.set(id, [...(kinds.get(id) ?? []), one]);
  }
  return [...kinds.values()].map((all) => {
    const { stage, op, dtype, x, n, k } = all[0];
    const phase = stage === "decode" ? "decode" : "prefill";
    const rows = phase === "decode" ? 1 : PROMPT_ROWS;
    const choice = standard.choose({ op, dtype, x, phase, rows, n, k, elements: rows * n * (k ?? 1) });
    return {
      op,
      dtypes: [dtype],
      x: [x],
      level: key.level,
      phase,
      n: only(n),
      ...(k === undefined ? {} : { k: only(k) }),
      ...changedChoice(choice, ...all),
      reason: `${all.map((one) => `${one.gain.toFixed(2)} × the default in "${one.stage}"`).join(", ")}, on ${day}`,
      tuned: true,
    };
  });
}

/** The table made with `key`; else why the one that is nearest to it does not count. */
export function findTable(tables: readonly TunedTable[], key: TunedKey): TunedTable | string {
  const fields = ["backend", "cpu", "level", "threads", "library"] as const;
  const agreeing = (table: TunedTable) => fields.filter((field) => table.key[field] === key[field]).length;
  const [nearest] = [...tables].sort((a, b) => agreeing(b) - agreeing(a));
  if (nearest === undefined) return "it holds no table";
  const other = fields.find((field) => nearest.key[field] !== key[field]);
  if (other === undefined) return nearest;
  if (other === "library") return "it was made with another build of the kernels";
  return `it was made for ${other} ${nearest.key[other]}, not ${key[other]}`;
}

// ---- the file

/** The text of a file with these tables. */
export function writeTables(tables: readonly TunedTable[]): string {
  return `${JSON.stringify({ format: TUNED_FORMAT, tables }, null, 1)}\n`;
}

type Fields = Record<string, unknown>;

class Reader {
  constructor(readonly file: string) {}

  fail(what: string): never {
    throw new MllmError("invalid_file", `this is no table of tuned kernels: ${what}`, {
      file: this.file,
      next: "`mllm tune --force` writes it anew",
    });
  }
  object(value: unknown, what: string): Fields {
    if (typeof value !== "object" || value === null || Array.isArray(value)) this.fail(`${what} is no object`);
    return value as Fields;
  }
  list(value: unknown, what: string): unknown[] {
    return Array.isArray(value) ? value : this.fail(`${what} is no list`);
  }
  text(fields: Fields, name: string, pattern: RegExp): string {
    const value = fields[name];
    return typeof value === "string" && pattern.test(value) ? value : this.fail(`${name} is wrong`);
  }
  size(fields: Fields, name: string, max: number): number {
    const value = fields[name];
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 1 && value <= max) return value;
    return this.fail(`${name} is not 1 to ${max}`);
  }
  name<T extends string>(fields: Fields, name: string, known: readonly T[]): T {
    const value = fields[name];
    return known.includes(value as T) ? value as T : this.fail(`${name} is unknown`);
  }
}

const plain = /^[^\p{Cc}]{0,200}$/u; // printed by doctor: no control characters
const opNames = Object.keys(opTable) as OpName[];
const dtypeNames = Object.keys(dtypes) as DType[];
const threadsMax = 1024;

function readMeasurement(read: Reader, value: unknown): Measurement {
  const fields = read.object(value, "a measurement");
  const { gain } = fields;
  if (typeof gain !== "number" || !(gain >= 1 && gain <= 1000)) read.fail("gain is not 1 to 1000");
  const one: Measurement = {
    stage: read.name(fields, "stage", stages),
    op: read.name(fields, "op", opNames),
    dtype: read.name(fields, "dtype", dtypeNames),
    x: read.name(fields, "x", dtypeNames),
    n: read.size(fields, "n", 2 ** 44),
    gain,
  };
  if (fields.k !== undefined) one.k = read.size(fields, "k", 2 ** 44);
  if (fields.threads !== undefined) one.threads = read.size(fields, "threads", threadsMax);
  if (fields.variant !== undefined) {
    if (one.op !== "linear") read.fail(`${one.op} has no variants`);
    one.variant = readVariant(read, read.object(fields.variant, "variant"));
  }
  return one;
}

function readVariant(read: Reader, fields: Fields): LinearVariant {
  const { mode = "auto", ...sizes } = fields as LinearVariant;
  if (!["auto", "gemv", "gemm"].includes(mode)) read.fail("mode is unknown");
  try {
    return decodeLinearVariant(encodeLinearVariant({ mode, ...sizes }))!;
  } catch {
    return read.fail("a size of a variant is out of range");
  }
}

function readTable(read: Reader, value: unknown): TunedTable {
  const fields = read.object(value, "a table");
  const key = read.object(fields.key, "key");
  const measurements = read.list(fields.measurements, "measurements").map((one) => readMeasurement(read, one));
  if (new Set(measurements.map(measurementKey)).size < measurements.length) read.fail("a measurement is there twice");
  return {
    key: {
      backend: read.text(key, "backend", /^[\w-]{1,40}$/),
      cpu: read.text(key, "cpu", plain),
      level: read.text(key, "level", /^[\w-]{1,40}$/),
      threads: read.size(key, "threads", threadsMax),
      library: read.text(key, "library", /^[0-9a-f]{64}$/),
    },
    day: read.text(fields, "day", /^\d{4}-\d\d-\d\d$/),
    measurements,
  };
}

/** The tables of a file's text. Throws `invalid_file` for anything that tune did not write. */
export function readTables(text: string, file: string): TunedTable[] {
  const read = new Reader(file);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return read.fail("it is no JSON");
  }
  const fields = read.object(json, "the file");
  if (fields.format !== TUNED_FORMAT) {
    throw new MllmError(
      "unsupported",
      `its format is ${JSON.stringify(fields.format)?.slice(0, 20)}, not ${TUNED_FORMAT}`,
      {
        file,
        next: "`mllm tune --force` writes it anew",
      },
    );
  }
  return read.list(fields.tables, "tables").map((table) => readTable(read, table));
}
