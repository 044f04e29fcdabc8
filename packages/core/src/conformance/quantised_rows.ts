/**
 * Rows of quantised caches as native/kernels/kv_page.zig makes them, in plain f32 steps: the oracle of its codes.
 * @module
 */
import type { KvDType } from "../kv_cache.ts";
import { rounders } from "./case.ts";

/** The Walsh-Hadamard rotation over the largest power of two that divides the row; its own inverse. */
function rotate(row: Float32Array): Float32Array {
  const x = row.slice();
  const span = x.length & -x.length;
  for (let step = 1; step < span; step *= 2) {
    for (let i = 0; i < x.length; i++) {
      if ((i & step) !== 0) continue;
      const [a, b] = [x[i], x[i + step]];
      x[i] = a + b;
      x[i + step] = a - b;
    }
  }
  const factor = Math.fround(1 / Math.fround(Math.sqrt(span)));
  return x.map((value) => value * factor);
}

function toNearestEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

function quantise(x: Float32Array, scale: number, low: number, high: number): Float32Array {
  if (scale === 0) return x.map(() => 0);
  return x.map((value) => scale * toNearestEven(Math.min(high, Math.max(low, Math.fround(value / scale)))));
}

/** A block of `quantize_rows`, which multiplies by the scale's inverse. */
function quantiseActivations(x: Float32Array): Float32Array {
  const scale = Math.fround(largest(x) / 127);
  if (scale === 0) return x.map(() => 0);
  const inverse = Math.fround(1 / scale);
  return x.map((value) => scale * toNearestEven(Math.fround(value * inverse)));
}

function inBlocks(row: Float32Array, block: (x: Float32Array) => Float32Array): Float32Array {
  const out = new Float32Array(row.length);
  for (let i = 0; i < row.length; i += 32) out.set(block(row.subarray(i, i + 32)), i);
  return out;
}

const largest = (x: Float32Array): number => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

function quantiseBlock(block: Float32Array, dtype: KvDType): Float32Array {
  const most = largest(block);
  if (dtype === "q8_0") return quantise(block, rounders.f16(Math.fround(most / 127)), -127, 127);
  return quantise(block, rounders.f16(block.includes(most) ? most / -8 : most / 8), -8, 7);
}

/** Which rows a cache stores, and how. */
export interface StoredAs {
  readonly dtype: KvDType;
  /** Whether they are keys, which have a reference where they are quantised. */
  readonly isKeys: boolean;
  readonly pageSize: number;
}

/** What attention reads of a row, and the part of it that is its page's reference. */
export interface StoredRow {
  readonly row: Float32Array;
  readonly reference: Float32Array;
}

/** The rows of one head as a cache has them, appended from position 0 on. */
export function stored(rows: readonly ArrayLike<number>[], { dtype, isKeys, pageSize }: StoredAs): StoredRow[] {
  if (dtype === "f32" || dtype === "f16") {
    return rows.map((row) => ({
      row: Float32Array.from(row, rounders[dtype]),
      reference: new Float32Array(row.length),
    }));
  }
  let reference = new Float32Array(rows[0].length);
  let sum = new Float32Array(rows[0].length);
  return rows.map((row, j) => {
    const x = rotate(Float32Array.from(row));
    if (isKeys && j % pageSize === 0) {
      const mean = j === 0 ? x : reference.map((value, i) => value + Math.fround(sum[i] / pageSize));
      reference = mean.map(rounders.f16);
      sum = sum.map(() => 0);
    }
    const coded = inBlocks(x.map((value, i) => value - reference[i]), (block) => quantiseBlock(block, dtype));
    sum = sum.map((value, i) => value + coded[i]);
    return { row: rotate(coded.map((value, i) => value + reference[i])), reference: rotate(reference) };
  });
}

/** What attention makes of a query row, times scale already, for keys of this type. */
export function asked(row: ArrayLike<number>, dtype: KvDType): ArrayLike<number> {
  const x = Float32Array.from(row);
  if (dtype === "f32" || dtype === "f16") return x;
  return rotate(inBlocks(rotate(x), quantiseActivations));
}
