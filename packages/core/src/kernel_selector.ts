/**
 * Which kernel variant runs an op, on how many threads, and why.
 *
 * A plugin brings rows; the first that fits decides. Choices never change results beyond rounding, and on CPU backends
 * not at all.
 * @module
 */
import type { DType } from "./dtype.ts";
import type { OpName } from "./native/abi.ts";

/** How many rows of activations an op has: one ("decode", a token at a time) or more ("prefill"). */
export type Phase = "decode" | "prefill";

/** A rule of the selector. Absent conditions always hold. */
export interface KernelRow {
  /** The op, or "*" for all. */
  readonly op: OpName | "*";
  /** Element types of the deciding operand, as `chooseKernel` says. */
  readonly dtypes?: readonly DType[];
  /** ISA level by name, one of the plugin's `levels`. */
  readonly level?: string;
  /** One row of activations, or more. */
  readonly phase?: Phase | "any";
  /** At least this size, as `chooseKernel` counts it. */
  readonly minElements?: number;
  /** At most this many of them. */
  readonly maxElements?: number;
  /** Kernel variant; 0 is the default of the level. */
  readonly variant: number;
  /** Threads at most; 0 is all of the pool. */
  readonly threads: number;
  /** One sentence for `mllm doctor`. */
  readonly reason: string;
}

/** What `KernelSelector.explain` is asked: one op of one size, with several types. */
export interface KernelQuery {
  /** Row of the op table. */
  readonly op: OpName;
  /** Types of the deciding operand, as `chooseKernel` says. */
  readonly dtypes: readonly DType[];
  /** One row of activations, or more. */
  readonly phase: Phase;
  /** Size of the op, as `chooseKernel` counts it. */
  readonly elements: number;
}

/** The answer of the selector: what the row that fitted says. */
export type KernelChoice = Pick<KernelRow, "variant" | "threads" | "reason">;

const fallback: KernelChoice = {
  variant: 0,
  threads: 0,
  reason: "no row of the table fits: the default kernel of the level on all threads",
};

/** Chooses kernels by the rows of a plugin, in their order. */
export class KernelSelector {
  readonly #byOp = new Map<OpName, readonly KernelRow[]>();

  /** Keeps the rows that can hold at this ISA level. */
  constructor(
    /** The rows, the first that fits decides. */
    readonly rows: readonly KernelRow[],
    /** The ISA level in use. */
    readonly level: string,
  ) {}

  /** The first row that fits, or the backend's default with a reason that says so. */
  choose(op: OpName, dtype: DType, phase: Phase, elements: number): KernelChoice {
    for (const row of this.#rowsOf(op)) {
      if (row.minElements !== undefined && elements < row.minElements) continue;
      if (row.maxElements !== undefined && elements > row.maxElements) continue;
      if (row.phase !== undefined && row.phase !== "any" && row.phase !== phase) continue;
      if (row.dtypes !== undefined && !row.dtypes.includes(dtype)) continue;
      return row;
    }
    return fallback;
  }

  /** What is chosen for each type and why: one line per choice, which names the types that it is made for. */
  explain({ op, dtypes, phase, elements }: KernelQuery): string[] {
    const typesByChoice = new Map<KernelChoice, DType[]>();
    for (const dtype of dtypes) {
      const choice = this.choose(op, dtype, phase, elements);
      typesByChoice.set(choice, [...(typesByChoice.get(choice) ?? []), dtype]);
    }
    return [...typesByChoice].map(([{ variant, threads, reason }, types]) => {
      const on = threads === 0 ? "all threads" : threads === 1 ? "1 thread" : `${threads} threads`;
      return `${op} ${phase} (${types.join(" ")}): variant ${variant} on ${on}: ${reason}`;
    });
  }

  #rowsOf(op: OpName): readonly KernelRow[] {
    let rows = this.#byOp.get(op);
    if (rows === undefined) {
      rows = this.rows.filter((row) =>
        (row.op === op || row.op === "*") && (row.level === undefined || row.level === this.level)
      );
      this.#byOp.set(op, rows);
    }
    return rows;
  }
}
