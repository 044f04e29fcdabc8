/**
 * Element types: what they are, how many bytes they take, and who defines their layout.
 *
 * Block types hold a row in blocks of `blockElements` values; their layouts are GGML's (ggml-common.h, gguf.md).
 * @module
 */
import { MllmError } from "./errors.ts";
import { blockInfo, Dtype } from "./native/abi.ts";

/** Name of an element type; {@linkcode dtypes} says what each is and who defines its layout. */
export type DType =
  | "f32"
  | "f16"
  | "bf16"
  | "i8"
  | "i16"
  | "i32"
  | "i64"
  | "f64"
  | "u8"
  | "q4_0"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "q8_0"
  | "q2_k"
  | "q3_k"
  | "q4_k"
  | "q5_k"
  | "q6_k"
  | "iq4_nl"
  | "iq4_xs"
  | "tq1_0"
  | "tq2_0"
  | "mxfp4"
  | "q8_g16"
  | "q8a";

/** What there is to know about an element type. */
export interface DTypeInfo {
  /** The id in the native ABI; below 64 also GGML's type id. */
  readonly id: number;
  /** Values per block; 1 for plain types, 0 where no strided block exists (q8_g16, q8a). */
  readonly blockElements: number;
  /** Bytes per block; per element for plain types. */
  readonly blockBytes: number;
  /** True for weights or activations in fewer bits than a plain float. */
  readonly quantized: boolean;
  /** Name, bits and layout in one line, with who defines it. */
  readonly doc: string;
}

type Strided = keyof typeof blockInfo;

const plain = (name: Strided, doc: string): DTypeInfo => ({
  id: Dtype[name],
  blockElements: 1,
  blockBytes: blockInfo[name].bytes,
  quantized: false,
  doc,
});
const block = (name: Strided, doc: string): DTypeInfo => ({
  id: Dtype[name],
  blockElements: blockInfo[name].elements,
  blockBytes: blockInfo[name].bytes,
  quantized: true,
  doc,
});
/** A type without a strided form of blocks. */
const special = (name: DType, doc: string): DTypeInfo => ({
  id: Dtype[name],
  blockElements: 0,
  blockBytes: 0,
  quantized: true,
  doc,
});

/** Every element type by name. Ids and block sizes are those of `native/abi.zig`. */
export const dtypes: Readonly<Record<DType, DTypeInfo>> = {
  f32: plain("f32", "IEEE 754 binary32"),
  f16: plain("f16", "IEEE 754 binary16"),
  bf16: plain("bf16", "bfloat16: the upper half of a binary32"),
  i8: plain("i8", "signed 8-bit integer"),
  i16: plain("i16", "signed 16-bit integer"),
  i32: plain("i32", "signed 32-bit integer"),
  i64: plain("i64", "signed 64-bit integer"),
  f64: plain("f64", "IEEE 754 binary64"),
  u8: plain("u8", "unsigned 8-bit integer (ours: GGML has none)"),
  q4_0: block("q4_0", "GGML Q4_0: f16 scale, 32 4-bit codes minus 8"),
  q4_1: block("q4_1", "GGML Q4_1: f16 scale and minimum, 32 4-bit codes"),
  q5_0: block("q5_0", "GGML Q5_0: f16 scale, 32 5-bit codes minus 16"),
  q5_1: block("q5_1", "GGML Q5_1: f16 scale and minimum, 32 5-bit codes"),
  q8_0: block("q8_0", "GGML Q8_0: f16 scale, 32 8-bit codes"),
  q2_k: block("q2_k", "GGML Q2_K: super-block of 16 × 16 2-bit codes, 4-bit scales and minima"),
  q3_k: block("q3_k", "GGML Q3_K: super-block of 16 × 16 3-bit codes, 6-bit scales"),
  q4_k: block("q4_k", "GGML Q4_K: super-block of 8 × 32 4-bit codes, 6-bit scales and minima"),
  q5_k: block("q5_k", "GGML Q5_K: super-block of 8 × 32 5-bit codes, 6-bit scales and minima"),
  q6_k: block("q6_k", "GGML Q6_K: super-block of 16 × 16 6-bit codes, 8-bit scales"),
  iq4_nl: block("iq4_nl", "GGML IQ4_NL: f16 scale, 32 4-bit indices into a nonlinear table"),
  iq4_xs: block("iq4_xs", "GGML IQ4_XS: super-block of 8 × 32 indices into IQ4_NL's table, 6-bit scales"),
  tq1_0: block("tq1_0", "GGML TQ1_0: ternary, 5 values per byte"),
  tq2_0: block("tq2_0", "GGML TQ2_0: ternary, 2 bits per value"),
  mxfp4: block("mxfp4", "OCP MXFP4: e8m0 scale, 32 e2m1 values"),
  q8_g16: special("q8_g16", "packed weights only: 8-bit codes with f32 scale and minimum per 16 values (ours)"),
  q8a: special("q8a", "activations quantised per row in blocks of 32: codes, f32 scales, i16 sums (ours)"),
};

const byId = new Map<number, DType>(Object.entries(dtypes).map(([name, info]) => [info.id, name as DType]));

/** The element type with this ABI (or GGML) id. Throws `unsupported` for an id that names none. */
export function dtypeFromId(id: number): DType {
  const dtype = byId.get(id);
  if (dtype === undefined) throw new MllmError("unsupported", `element type id ${id} is not known`);
  return dtype;
}

/**
 * Bytes of one q8a row of `k` values, k a multiple of 32: k int8 codes, an f32 scale per 32, an i16 sum of codes per
 * 16, padded to 64 bytes.
 */
export function q8aRowBytes(k: number): number {
  return Math.ceil((k + (k / 32) * 4 + (k / 16) * 2) / 64) * 64;
}

/**
 * Bytes of a contiguous strided tensor of this type. The last dim of a block type must be whole blocks
 * (`invalid_argument` otherwise, and for no dtype); packed-only types have no such size (`unsupported`).
 */
export function byteLength(dtype: DType, shape: readonly number[]): number {
  if (!Object.hasOwn(dtypes, dtype)) {
    throw new MllmError("invalid_argument", `there is no dtype ${JSON.stringify(dtype)}`, {
      next: `There are: ${Object.keys(dtypes).join(", ")}`,
    });
  }
  const info = dtypes[dtype];
  let elements = 1;
  for (const dim of shape) elements *= dim;
  if (info.blockElements === 1) return elements * info.blockBytes;
  const k = shape.length === 0 ? 1 : shape[shape.length - 1];
  if (dtype === "q8a") {
    if (k % 32 !== 0) throw new MllmError("invalid_argument", `q8a rows hold whole blocks of 32, not ${k} values`);
    return k === 0 ? 0 : (elements / k) * q8aRowBytes(k);
  }
  if (info.blockElements === 0) throw new MllmError("unsupported", `${dtype} exists only as packed weights`);
  if (k % info.blockElements !== 0) {
    throw new MllmError(
      "invalid_argument",
      `${dtype} rows hold whole blocks of ${info.blockElements}, not ${k} values`,
    );
  }
  return (elements / info.blockElements) * info.blockBytes;
}
