import { type DType, dtypes } from "../../dtype.ts";
import { MllmError } from "../../errors.ts";
import { f32FromBits, fromF16 } from "./half.ts";
import { kBlocks } from "./k_quants.ts";
import { nonlinearBlocks } from "./nonlinear.ts";

/** Writes the values of the block that starts at byte `at` to `out` from index `o`. */
export type BlockDecoder = (view: DataView, at: number, out: Float32Array, o: number) => void;

const f16At = (view: DataView, at: number): number => fromF16(view.getUint16(at, true));

/** The blocks of 32 with one scale: layouts in ggml-common.h; arithmetic in binary32 as gguf-py's quants.py. */
const simpleBlocks: Partial<Record<DType, BlockDecoder>> = {
  q4_0(view, at, out, o) {
    const d = f16At(view, at);
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(at + 2 + i);
      out[o + i] = d * ((byte & 15) - 8);
      out[o + 16 + i] = d * ((byte >> 4) - 8);
    }
  },
  q4_1(view, at, out, o) {
    const d = f16At(view, at);
    const m = f16At(view, at + 2);
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(at + 4 + i);
      out[o + i] = Math.fround(d * (byte & 15)) + m;
      out[o + 16 + i] = Math.fround(d * (byte >> 4)) + m;
    }
  },
  q5_0(view, at, out, o) {
    const d = f16At(view, at);
    const high = view.getUint32(at + 2, true);
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(at + 6 + i);
      out[o + i] = d * (((byte & 15) | (((high >>> i) & 1) << 4)) - 16);
      out[o + 16 + i] = d * (((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16);
    }
  },
  q5_1(view, at, out, o) {
    const d = f16At(view, at);
    const m = f16At(view, at + 2);
    const high = view.getUint32(at + 4, true);
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(at + 8 + i);
      out[o + i] = Math.fround(d * ((byte & 15) | (((high >>> i) & 1) << 4))) + m;
      out[o + 16 + i] = Math.fround(d * ((byte >> 4) | (((high >>> (i + 16)) & 1) << 4))) + m;
    }
  },
  q8_0(view, at, out, o) {
    const d = f16At(view, at);
    for (let i = 0; i < 32; i++) out[o + i] = d * view.getInt8(at + 2 + i);
  },
};

const plainTypes: Partial<Record<DType, BlockDecoder>> = {
  f32: (view, at, out, o) => out[o] = view.getFloat32(at, true),
  f64: (view, at, out, o) => out[o] = view.getFloat64(at, true),
  f16: (view, at, out, o) => out[o] = f16At(view, at),
  bf16: (view, at, out, o) => out[o] = f32FromBits(view.getUint16(at, true) << 16),
  i8: (view, at, out, o) => out[o] = view.getInt8(at),
  u8: (view, at, out, o) => out[o] = view.getUint8(at),
  i16: (view, at, out, o) => out[o] = view.getInt16(at, true),
  i32: (view, at, out, o) => out[o] = view.getInt32(at, true),
  i64: (view, at, out, o) => out[o] = Number(view.getBigInt64(at, true)),
};

const decoders: Partial<Record<DType, BlockDecoder>> = {
  ...plainTypes,
  ...simpleBlocks,
  ...kBlocks,
  ...nonlinearBlocks,
};

/**
 * Values of `count` elements of any file dtype: the scalar oracle of every block type, bit-equal to gguf-py.
 *
 * @param bytes rows of whole blocks
 * @returns f32 [count]
 * @throws MllmError `invalid_argument` for a wrong count or too few bytes, `unsupported` for packed-only dtypes
 */
export function dequantize(dtype: DType, bytes: Uint8Array, count: number): Float32Array {
  const decode = decoders[dtype];
  if (!decode) throw new MllmError("unsupported", `${dtype} has no form in a file to dequantise from`);
  const { blockElements, blockBytes } = dtypes[dtype];
  const blocks = count / blockElements;
  if (!Number.isSafeInteger(blocks) || blocks < 0) {
    throw new MllmError(
      "invalid_argument",
      `${count} elements are no whole blocks of ${dtype} (${blockElements} each)`,
    );
  }
  if (bytes.byteLength < blocks * blockBytes) {
    throw new MllmError(
      "invalid_argument",
      `${count} elements of ${dtype} need ${blocks * blockBytes} bytes, not ${bytes.byteLength}`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(count);
  for (let i = 0; i < blocks; i++) decode(view, i * blockBytes, out, i * blockElements);
  return out;
}
