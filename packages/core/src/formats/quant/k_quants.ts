import type { DType } from "../../dtype.ts";
import type { BlockDecoder } from "./dequantize.ts";
import { fromF16 } from "./half.ts";

const f16At = (view: DataView, at: number): number => fromF16(view.getUint16(at, true));
const fround = Math.fround;

/** Scale (`minimum` false) or minimum of group `j` of q4_k and q5_k: 8 + 8 values of 6 bits in 12 bytes. */
function scaleOrMin(view: DataView, at: number, j: number, minimum: boolean): number {
  const from = at + (minimum ? 4 : 0);
  if (j < 4) return view.getUint8(from + j) & 63;
  const both = view.getUint8(at + 8 + j - 4);
  return (minimum ? both >> 4 : both & 15) | ((view.getUint8(from + j - 4) >> 6) << 4);
}

/** The K-quants of 256 elements. Layouts: ggml-common.h, block_q2_K … block_q6_K. */
export const kBlocks: Partial<Record<DType, BlockDecoder>> = {
  // 16 bytes of (scale | min << 4) per 16 elements, 64 bytes of 2-bit codes, f16 d, f16 dmin
  q2_k(view, at, out, o) {
    const d = f16At(view, at + 80);
    const dmin = f16At(view, at + 82);
    for (let i = 0; i < 256; i++) {
      const scales = view.getUint8(at + (i >> 4));
      const code = (view.getUint8(at + 16 + (i >> 7) * 32 + (i & 31)) >> (((i >> 5) & 3) * 2)) & 3;
      out[o + i] = fround(fround(d * (scales & 15)) * code) - fround(dmin * (scales >> 4));
    }
  },
  // 32 bytes of high bits (set: no offset), 64 bytes of 2-bit codes, 16 scales of 6 bits in 12 bytes, f16 d
  q3_k(view, at, out, o) {
    const d = f16At(view, at + 108);
    for (let i = 0; i < 256; i++) {
      const group = i >> 4;
      const low = (view.getUint8(at + 96 + (group & 7)) >> (group < 8 ? 0 : 4)) & 15;
      const high = (view.getUint8(at + 104 + (group & 3)) >> ((group >> 2) * 2)) & 3;
      const code = (view.getUint8(at + 32 + (i >> 7) * 32 + (i & 31)) >> (((i >> 5) & 3) * 2)) & 3;
      const offset = (view.getUint8(at + (i & 31)) >> (i >> 5)) & 1 ? 0 : 4;
      out[o + i] = fround(d * ((low | (high << 4)) - 32)) * (code - offset);
    }
  },
  // f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes of nibbles: 32 low ones, then the same bytes' high ones
  q4_k(view, at, out, o) {
    const d = f16At(view, at);
    const dmin = f16At(view, at + 2);
    for (let group = 0; group < 8; group++) {
      const scale = fround(d * scaleOrMin(view, at + 4, group, false));
      const min = fround(dmin * scaleOrMin(view, at + 4, group, true));
      for (let i = 0; i < 32; i++) {
        const code = (view.getUint8(at + 16 + (group >> 1) * 32 + i) >> ((group & 1) * 4)) & 15;
        out[o + group * 32 + i] = fround(scale * code) - min;
      }
    }
  },
  // as q4_k with 32 bytes of fifth bits before the nibbles, bit `group` of byte i
  q5_k(view, at, out, o) {
    const d = f16At(view, at);
    const dmin = f16At(view, at + 2);
    for (let group = 0; group < 8; group++) {
      const scale = fround(d * scaleOrMin(view, at + 4, group, false));
      const min = fround(dmin * scaleOrMin(view, at + 4, group, true));
      for (let i = 0; i < 32; i++) {
        const low = (view.getUint8(at + 48 + (group >> 1) * 32 + i) >> ((group & 1) * 4)) & 15;
        const code = low | (((view.getUint8(at + 16 + i) >> group) & 1) << 4);
        out[o + group * 32 + i] = fround(scale * code) - min;
      }
    }
  },
  // 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 i8 scales, f16 d
  q6_k(view, at, out, o) {
    const d = f16At(view, at + 208);
    for (let i = 0; i < 256; i++) {
      const half = i >> 7;
      const low = (view.getUint8(at + half * 64 + (i & 63)) >> (((i >> 6) & 1) * 4)) & 15;
      const high = (view.getUint8(at + 128 + half * 32 + (i & 31)) >> (((i >> 5) & 3) * 2)) & 3;
      out[o + i] = fround(d * view.getInt8(at + 192 + (i >> 4))) * ((low | (high << 4)) - 32);
    }
  },
};
