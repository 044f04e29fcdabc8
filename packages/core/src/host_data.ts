/**
 * Numbers on the JavaScript side of a tensor: conversion to what is stored, and back.
 * @module
 */
import { type DType, dtypes, q8aRowBytes } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import { bf16FromF32Bits, f32Bits, f32FromBits } from "./formats/quant/half.ts";
import type { View } from "./view.ts";

/** Arrays that tensors can be written from; `Tensor.from` says how each is converted. */
export type NumberArray =
  | Float32Array
  | Float64Array
  | Float16Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigInt64Array
  | readonly number[];

type Stored = ArrayBufferView<ArrayBufferLike>;

/** The bits of a number as bfloat16, rounded to nearest even; NaN stays NaN. */
export function toBf16(value: number): number {
  return bf16FromF32Bits(f32Bits(value));
}

/** The value of bfloat16 bits. */
export function fromBf16(bits: number): number {
  return f32FromBits(bits << 16);
}

/** The bytes to store for values of a type. Bytes (Uint8Array) and 16-bit patterns (Uint16Array) pass as they are. */
export function toStored(values: NumberArray, dtype: DType): Stored {
  if (values instanceof Uint8Array && dtype !== "f32" && dtype !== "i32") return values;
  if (values instanceof BigInt64Array) {
    if (dtype === "i64") return values;
    throw new MllmError("invalid_argument", `64-bit integers can't be written to ${dtype}`);
  }
  switch (dtype) {
    case "f32":
      return values instanceof Float32Array ? values : Float32Array.from(values as readonly number[]);
    case "f64":
      return Float64Array.from(values as readonly number[]);
    case "f16":
      return values instanceof Uint16Array ? values : Float16Array.from(values as readonly number[]);
    case "bf16":
      return values instanceof Uint16Array ? values : Uint16Array.from(values as readonly number[], toBf16);
    case "i32":
      return values instanceof Int32Array ? values : Int32Array.from(values as readonly number[]);
    case "i16":
      return Int16Array.from(values as readonly number[]);
    case "i8":
      return Int8Array.from(values as readonly number[]);
    case "i64":
      return BigInt64Array.from(Array.from(values as readonly number[], BigInt));
    default:
      throw new MllmError("invalid_argument", `numbers can't be written to ${dtype}`, {
        next: "Give the bytes of its blocks",
      });
  }
}

/** Reads one element of a plain type at a byte offset. */
function reader(dtype: DType, data: DataView): (at: number) => number {
  switch (dtype) {
    case "f32":
      return (at) => data.getFloat32(at, true);
    case "f64":
      return (at) => data.getFloat64(at, true);
    case "f16":
      return (at) => data.getFloat16(at, true);
    case "bf16":
      return (at) => fromBf16(data.getUint16(at, true));
    case "i8":
      return (at) => data.getInt8(at);
    case "u8":
      return (at) => data.getUint8(at);
    case "i16":
      return (at) => data.getInt16(at, true);
    case "i32":
      return (at) => data.getInt32(at, true);
    case "i64":
      return (at) => Number(data.getBigInt64(at, true));
    default:
      throw new MllmError("internal", `no reader for ${dtype}`);
  }
}

/** The elements of a view over `bytes` (its whole storage), row-major. Shapes are numbers here. */
export function copyOut(
  bytes: Uint8Array<ArrayBuffer>,
  view: Omit<View, "shape"> & { shape: readonly number[] },
): Float64Array | Float32Array {
  const { shape, strides, dtype, byteOffset } = view;
  const count = shape.reduce((a, b) => a * b, 1);
  if (dtype === "q8a") return dequantizeQ8a(bytes.subarray(byteOffset), count, shape[shape.length - 1]);
  const out = dtype === "f32" ? new Float32Array(count) : new Float64Array(count);
  if (count === 0) return out;
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read = reader(dtype, data);
  const size = dtypes[dtype].blockBytes;
  const last = shape.length - 1;
  const n = last < 0 ? 1 : shape[last];
  const step = (last < 0 ? 0 : strides[last]) * size;
  for (let row = 0; row < count / n; row++) {
    let at = byteOffset;
    for (let i = last - 1, rest = row; i >= 0; i--) {
      at += (rest % shape[i]) * strides[i] * size;
      rest = Math.floor(rest / shape[i]);
    }
    for (let j = 0; j < n; j++) out[row * n + j] = read(at + j * step);
  }
  return out;
}

/** Values of q8a rows of `k`: k i8 codes, then k/32 f32 scales (native/abi.zig, `q8aRowBytes`). */
function dequantizeQ8a(bytes: Uint8Array<ArrayBuffer>, count: number, k: number): Float32Array {
  const out = new Float32Array(count);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let row = 0; row < count / k; row++) {
    const base = row * q8aRowBytes(k);
    for (let i = 0; i < k; i++) {
      out[row * k + i] = data.getInt8(base + i) * data.getFloat32(base + k + Math.floor(i / 32) * 4, true);
    }
  }
  return out;
}
