/** Reading of reference data for tests. */
import { openSafetensors, readWeight, type SafetensorsFile } from "@mllm/core";

/** Tensors of a safetensors file with their values. */
export class Oracle {
  constructor(readonly file: SafetensorsFile) {}

  /** Opens a file of reference tensors. */
  static async open(path: string): Promise<Oracle> {
    return new Oracle(await openSafetensors(path));
  }

  /** Whether there is such a tensor. */
  has(name: string): boolean {
    return this.file.tensors.has(name);
  }

  /** Values of an f32 tensor, row-major. */
  floats(name: string): Float32Array {
    return new Float32Array(this.#bytes(name));
  }

  /** Values of an i32 tensor, row-major. */
  ints(name: string): number[] {
    return [...new Int32Array(this.#bytes(name))];
  }

  #bytes(name: string): ArrayBuffer {
    const info = this.file.tensors.get(name);
    if (!info) throw new Error(`the oracle has no tensor ${name}`);
    return readWeight(info).slice().buffer as ArrayBuffer;
  }
}

/** Largest absolute difference of two arrays of equal length; NaN counts as infinite. */
export function maxAbsDifference(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values instead of ${expected.length}`);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i] - expected[i]);
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}

/** Whether two arrays hold the same bits. */
export function sameBits(a: Float32Array, b: Float32Array): boolean {
  const x = new Int32Array(a.buffer, a.byteOffset, a.length);
  const y = new Int32Array(b.buffer, b.byteOffset, b.length);
  return x.length === y.length && x.every((bits, i) => bits === y[i]);
}
