/**
 * What a conformance case is, and numbers to make cases of.
 * @module
 */
import type { DType } from "../dtype.ts";
import { fromBf16, toBf16 } from "../host_data.ts";
import type { Tensor } from "../tensor.ts";

/** A tensor before it is on a backend. `values` are exact in the dtype. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
  /** The stored bytes, for block types. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
}

/** How an input lies in memory: dense, off by one element with padded rows, or with its first two dims exchanged. */
export type Placement = "dense" | "padded" | "transposed";

/**
 * Largest allowed |actual - expected|: abs + rel * |expected|, zero for exact; or `rms`, that of the root of their mean
 * square over the output, by that of what is expected.
 */
export type Tolerance = { readonly abs: number; readonly rel: number } | { readonly rms: number };

/** An op on given inputs with what it must give. */
export interface OpCase {
  readonly name: string;
  readonly inputs: readonly (HostTensor | undefined)[];
  /** Calls the op; `out` is the place for output 0 when in place is tried. */
  call(inputs: Tensor[], out?: Tensor): Tensor[];
  /**
   * The outputs, computed in f64 from the input values (and, where a later output starts from an earlier one, from
   * those).
   */
  expect(inputs: readonly ArrayLike<number>[], outputs: readonly ArrayLike<number>[]): ArrayLike<number>[];
  readonly tolerance: Tolerance;
  /** Inputs that are always dense, because the op asks for it. */
  readonly dense?: readonly number[];
  /** Inputs whose rows must be contiguous: padded but not transposed. */
  readonly wholeRows?: readonly number[];
  /** Output 0 in pieces along the first dim: together they must have the bits of the whole. */
  chunks?(inputs: Tensor[]): Tensor[];
  /** The last output quantised on the way: it must have the bits of `quantizeRows` of that output. */
  quantized?(inputs: Tensor[]): Tensor;
  /** Inputs with a row per output row: a row alone must give the bits it gives among others. */
  readonly rowInputs?: readonly number[];
}

/** Makes the cases of an op. */
export type CaseMaker = () => OpCase[];

/** Lengths around the vector widths and their tails. */
export const tails = [1, 3, 7, 17, 33, 65, 129] as const;

/** For transcendental functions of moderate arguments in f32. */
export const close: Tolerance = { abs: 2e-6, rel: 4e-6 };
export const exact: Tolerance = { abs: 0, rel: 0 };

/** Repeatable numbers (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** In 0..below-1. */
  int(below: number): number {
    return Math.floor(this.next() * below);
  }

  /** A tensor of values in [-scale, scale), exact in its type. */
  tensor(shape: readonly number[], scale = 2, dtype: "f32" | "f16" | "bf16" = "f32"): HostTensor {
    const count = shape.reduce((a, b) => a * b, 1);
    const round = rounders[dtype];
    return { dtype, shape, values: Float64Array.from({ length: count }, () => round((this.next() * 2 - 1) * scale)) };
  }

  /** A tensor of integers in 0..below-1. */
  ids(shape: readonly number[], below: number): HostTensor {
    const count = shape.reduce((a, b) => a * b, 1);
    return { dtype: "i32", shape, values: Float64Array.from({ length: count }, () => this.int(below)) };
  }

  /** Random bytes. */
  bytes(count: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length: count }, () => this.int(256));
  }
}

const half = new Float16Array(1);

/** Rounds to nearest even in a type. */
export const rounders = {
  f32: Math.fround,
  bf16: (value: number) => fromBf16(toBf16(value)),
  f16: (value: number) => {
    half[0] = value;
    return half[0];
  },
};

/** A tensor with these rows of equal length. */
export function rowsOf(rows: readonly (readonly number[])[]): HostTensor {
  return { dtype: "f32", shape: [rows.length, rows[0].length], values: Float64Array.from(rows.flat(), Math.fround) };
}

/** Applies a function of one row to each row of `n` values. */
export function byRow(
  values: ArrayLike<number>,
  n: number,
  fn: (row: number[], index: number) => ArrayLike<number>,
): number[] {
  const out: number[] = [];
  for (let i = 0; i < values.length / n; i++) {
    const row = Array.from({ length: n }, (_, j) => values[i * n + j]);
    const result = fn(row, i);
    for (let j = 0; j < result.length; j++) out.push(result[j]);
  }
  return out;
}

/** The last dim of a case's input. */
export function lastDim(tensor: HostTensor): number {
  return tensor.shape[tensor.shape.length - 1];
}
