import { type DType, dtypes } from "../../dtype.ts";
import { MllmError } from "../../errors.ts";
import { bf16FromF32Bits, f16FromF32Bits, toF16 } from "./half.ts";

const fround = Math.fround;

type BlockEncoder = (x: Float32Array, o: number, view: DataView, at: number) => void;

/** Inverse of a scale in binary32; 0 for 0. */
const inverse = (d: number): number => (d === 0 ? 0 : fround(1 / d));

/** The value of largest magnitude among the 32, the first of equals. */
function extreme(x: Float32Array, o: number): number {
  let best = x[o];
  for (let i = 1; i < 32; i++) if (Math.abs(x[o + i]) > Math.abs(best)) best = x[o + i];
  return best;
}

/** trunc(value + add) in binary32, clamped to [0, max]. */
function code(value: number, add: number, max: number): number {
  const q = Math.trunc(fround(fround(value) + add));
  return q > max ? max : q > 0 ? q : 0;
}

/** Writes 16 bytes of low nibbles and returns the fifth bits. */
function writeNibbles(codes: Uint8Array, view: DataView, at: number): number {
  let high = 0;
  for (let i = 0; i < 16; i++) {
    view.setUint8(at + i, (codes[i] & 15) | ((codes[i + 16] & 15) << 4));
    high |= ((codes[i] >> 4) << i) | ((codes[i + 16] >> 4) << (i + 16));
  }
  return high;
}

const codes = new Uint8Array(32);

/** Codes of q4_0 and q5_0: around `center`, the extreme value exactly representable. Returns d. */
function symmetric(x: Float32Array, o: number, center: number): number {
  const d = fround(extreme(x, o) / -center);
  const id = inverse(d);
  for (let i = 0; i < 32; i++) codes[i] = code(x[o + i] * id, center + 0.5, center * 2 - 1);
  return d;
}

/** Codes of q4_1 and q5_1: from the minimum in steps of d. Returns [d, min]. */
function affine(x: Float32Array, o: number, steps: number): [number, number] {
  let min = x[o];
  let max = x[o];
  for (let i = 1; i < 32; i++) {
    if (x[o + i] < min) min = x[o + i];
    if (x[o + i] > max) max = x[o + i];
  }
  const d = fround(fround(max - min) / steps);
  const id = inverse(d);
  for (let i = 0; i < 32; i++) codes[i] = code(fround(x[o + i] - min) * id, 0.5, steps);
  return [d, min];
}

const encoders: Partial<Record<DType, BlockEncoder>> = {
  f32: (x, o, view, at) => view.setFloat32(at, x[o], true),
  q4_0(x, o, view, at) {
    view.setUint16(at, toF16(symmetric(x, o, 8)), true);
    writeNibbles(codes, view, at + 2);
  },
  q4_1(x, o, view, at) {
    const [d, min] = affine(x, o, 15);
    view.setUint16(at, toF16(d), true);
    view.setUint16(at + 2, toF16(min), true);
    writeNibbles(codes, view, at + 4);
  },
  q5_0(x, o, view, at) {
    view.setUint16(at, toF16(symmetric(x, o, 16)), true);
    view.setUint32(at + 2, writeNibbles(codes, view, at + 6), true);
  },
  q5_1(x, o, view, at) {
    const [d, min] = affine(x, o, 31);
    view.setUint16(at, toF16(d), true);
    view.setUint16(at + 2, toF16(min), true);
    view.setUint32(at + 4, writeNibbles(codes, view, at + 8), true);
  },
  q8_0(x, o, view, at) {
    const d = fround(Math.abs(extreme(x, o)) / 127);
    const id = inverse(d);
    view.setUint16(at, toF16(d), true);
    for (let i = 0; i < 32; i++) {
      // roundf: halves away from zero
      const value = fround(x[o + i] * id);
      const floor = Math.floor(Math.abs(value));
      const rounded = Math.abs(value) - floor >= 0.5 ? floor + 1 : floor;
      view.setInt8(at + 2 + i, value < 0 ? -rounded : rounded);
    }
  },
};

/** Types that `quantize` can write. */
export const quantizable: readonly DType[] = ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"];

/**
 * Converts rows of whole blocks, as llama.cpp's reference quantiser does (quantize_row_*_ref in ggml-quants.c); f16 and
 * bf16 round to nearest even.
 *
 * @param values f32, a multiple of the block's elements
 * @returns the blocks as stored in files, little-endian
 * @throws MllmError `invalid_argument` when the count is no multiple of the block, `unsupported` for other types
 */
export function quantize(dtype: DType, values: Float32Array): Uint8Array {
  const { blockElements, blockBytes } = dtypes[dtype];
  if (!quantizable.includes(dtype)) {
    throw new MllmError("unsupported", `can't quantise to ${dtype}`, { next: `Use one of ${quantizable.join(", ")}` });
  }
  if (values.length % blockElements !== 0) {
    throw new MllmError(
      "invalid_argument",
      `${values.length} elements are no whole blocks of ${dtype} (${blockElements} each)`,
    );
  }
  const blocks = values.length / blockElements;
  const out = new Uint8Array(blocks * blockBytes);
  if (dtype === "f16" || dtype === "bf16") {
    const convert = dtype === "f16" ? f16FromF32Bits : bf16FromF32Bits;
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    const target = new Uint16Array(out.buffer);
    for (let i = 0; i < bits.length; i++) target[i] = convert(bits[i]);
    return out;
  }
  const view = new DataView(out.buffer);
  const encode = encoders[dtype]!;
  for (let i = 0; i < blocks; i++) encode(values, i * blockElements, view, i * blockBytes);
  return out;
}
