/**
 * Which kernel variant runs an op, on how many threads, and why.
 *
 * A plugin brings rows, and `mllm tune` puts its own before them; the first that fits decides. Choices never change
 * results beyond rounding, and on CPU backends not at all.
 * @module
 */
import type { DType } from "./dtype.ts";
import { decodeLinearVariant } from "./linear_variant.ts";
import type { OpName } from "./native/abi.ts";

/** How many rows of activations an op has: one ("decode", a token at a time) or more ("prefill"). */
export type Phase = "decode" | "prefill";

/** Bounds of a size, both included; an absent one always holds. */
export interface SizeRange {
  /** At least this. */
  readonly min?: number;
  /** At most this. */
  readonly max?: number;
}

/** A rule of the selector. Absent conditions always hold. */
export interface KernelRow {
  /** The op, or "*" for all. */
  readonly op: OpName | "*";
  /** Element types of the deciding operand, as `KernelQuery` says. */
  readonly dtypes?: readonly DType[];
  /** Element types of the first input: q8a or f32 of `linear`. */
  readonly x?: readonly DType[];
  /** ISA level by name, one of the plugin's `levels`. */
  readonly level?: string;
  /** Micro-architectures by name, as `DeviceInfo` has it. */
  readonly cpu?: readonly string[];
  /** One row of activations, or more. */
  readonly phase?: Phase;
  /** How large the op is, as `KernelQuery` counts it. */
  readonly elements?: SizeRange;
  /** Rows of the first input. */
  readonly rows?: SizeRange;
  /** Rows of the weights; of other ops the elements of a row. */
  readonly n?: SizeRange;
  /** Elements of a row of the weights. */
  readonly k?: SizeRange;
  /** Kernel variant, of `linear` by `encodeLinearVariant`; 0 is the default of the level. */
  readonly variant: number;
  /** Threads at most; 0 is all of the pool. */
  readonly threads: number;
  /** One sentence for `mllm doctor`. */
  readonly reason: string;
  /** Whether it was measured on this machine by `mllm tune`. */
  readonly tuned?: boolean;
}

/** What the selector is asked: an op with its types and sizes, symbolic dims at their maximum. */
export interface KernelQuery {
  /** Row of the op table. */
  readonly op: OpName;
  /** Type of the deciding operand: the weights, for attention the keys, else the first input. */
  readonly dtype: DType;
  /** Type of the first input. */
  readonly x: DType;
  /** One row of activations, or more. */
  readonly phase: Phase;
  /** Multiply-adds of `linear`, elements of the result of `embedding`, else elements of the first input. */
  readonly elements: number;
  /** First dim of the first input. */
  readonly rows: number;
  /** Rows of the weights; of ops without any, the elements of a row of the first input. */
  readonly n: number;
  /** Elements of a row of the weights. */
  readonly k?: number;
}

/** The answer of the selector: what the row that fitted says. */
export type KernelChoice = Pick<KernelRow, "variant" | "threads" | "reason" | "cpu" | "tuned">;

const fallback: KernelChoice = {
  variant: 0,
  threads: 0,
  reason: "no row of the table fits: the default kernel of the level on all threads",
};

const isWithin = (value: number | undefined, range: SizeRange | undefined): boolean =>
  range === undefined ||
  (value !== undefined && value >= (range.min ?? -Infinity) && value <= (range.max ?? Infinity));

/** Chooses kernels by the rows of a plugin, in their order. */
export class KernelSelector {
  readonly #byOp = new Map<OpName, readonly KernelRow[]>();

  /** Keeps the rows that can hold at this ISA level on this CPU. */
  constructor(
    /** The rows, the first that fits decides. */
    readonly rows: readonly KernelRow[],
    /** The ISA level in use. */
    readonly level: string,
    /** The micro-architecture of the device, where it has a name. */
    readonly cpu?: string,
  ) {}

  /** The first row that fits, or the backend's default with a reason that says so. */
  choose(query: KernelQuery): KernelChoice {
    for (const row of this.#rowsOf(query.op)) {
      if (row.phase !== undefined && row.phase !== query.phase) continue;
      if (row.dtypes !== undefined && !row.dtypes.includes(query.dtype)) continue;
      if (row.x !== undefined && !row.x.includes(query.x)) continue;
      if (!isWithin(query.n, row.n) || !isWithin(query.k, row.k)) continue;
      if (isWithin(query.rows, row.rows) && isWithin(query.elements, row.elements)) return row;
    }
    return fallback;
  }

  /** What is chosen for each type and why: one line per choice, which names the types that it is made for. */
  explain({ dtypes, ...query }: Omit<KernelQuery, "dtype"> & { readonly dtypes: readonly DType[] }): string[] {
    const typesByChoice = new Map<KernelChoice, DType[]>();
    for (const dtype of dtypes) {
      const choice = this.choose({ ...query, dtype });
      typesByChoice.set(choice, [...(typesByChoice.get(choice) ?? []), dtype]);
    }
    return [...typesByChoice].map(([choice, types]) =>
      `${query.op} ${query.phase} (${types.join(" ")}): ${describeChoice(query.op, choice)}`
    );
  }

  #rowsOf(op: OpName): readonly KernelRow[] {
    let rows = this.#byOp.get(op);
    if (rows === undefined) {
      rows = this.rows.filter((row) =>
        (row.op === op || row.op === "*") && (row.level === undefined || row.level === this.level) &&
        (row.cpu === undefined || (this.cpu !== undefined && row.cpu.includes(this.cpu)))
      );
      this.#byOp.set(op, rows);
    }
    return rows;
  }
}

/** A choice in words: where it comes from, the kernel, the threads, the reason. */
export function describeChoice(op: OpName, { variant, threads, reason, cpu, tuned }: KernelChoice): string {
  const origin = tuned ? "tuned" : cpu === undefined ? "any CPU" : cpu.join(", ");
  const on = threads === 0 ? "all threads" : threads === 1 ? "1 thread" : `${threads} threads`;
  return `[${origin}] ${describeVariant(op, variant)} on ${on}: ${reason}`;
}

function describeVariant(op: OpName, variant: number): string {
  if (variant === 0) return "the level's kernel";
  const fields = op === "linear" ? decodeLinearVariant(variant) : undefined;
  if (fields === undefined) return `variant ${variant}`;
  const { mode = "auto", fewRows, tileRows, run, prefetch } = fields;
  return [
    mode === "auto" ? "GEMV or GEMM by the rows" : mode.toUpperCase(),
    ...(fewRows === undefined ? [] : [`GEMV up to ${fewRows} rows`]),
    ...(tileRows === undefined ? [] : [`tiles of ${tileRows} rows`]),
    ...(run === undefined ? [] : [`runs of ${run} panels`]),
    ...(prefetch === undefined ? [] : [`weights asked for ${prefetch / 2} KiB ahead`]),
  ].join(", ");
}
