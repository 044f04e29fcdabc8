import type { DType } from "../../dtype.ts";
import type { BlockDecoder } from "./dequantize.ts";
import { f32FromBits, fromF16 } from "./half.ts";

const f16At = (view: DataView, at: number): number => fromF16(view.getUint16(at, true));
const fround = Math.fround;

/** Values of iq4_nl and iq4_xs codes (ggml-common.h, kvalues_iq4nl). */
const iq4Values: readonly number[] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/** Twice the values of E2M1 codes (OCP Microscaling Formats v1.0, table 5). */
const e2m1Doubled: readonly number[] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** Half the value of an E8M0 exponent: 2^(e - 128), which for e < 2 is subnormal. */
function e8m0Half(e: number): number {
  return f32FromBits(e < 2 ? 0x200000 << e : (e - 1) << 23);
}

/** Trit number `n` of a byte that holds five as a fraction of 243/256 (ggml's dequantize_row_tq1_0). */
function trit(byte: number, power: number): number {
  return ((((byte * power) & 255) * 3) >> 8) - 1;
}
const powers = [1, 3, 9, 27, 81];

/** Block types whose codes are no plain integers. Layouts: ggml-common.h. */
export const nonlinearBlocks: Partial<Record<DType, BlockDecoder>> = {
  iq4_nl(view, at, out, o) {
    const d = f16At(view, at);
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(at + 2 + i);
      out[o + i] = d * iq4Values[byte & 15];
      out[o + 16 + i] = d * iq4Values[byte >> 4];
    }
  },
  // f16 d, u16 of high scale bits, 4 bytes of low scale nibbles, 128 bytes of codes
  iq4_xs(view, at, out, o) {
    const d = f16At(view, at);
    const highs = view.getUint16(at + 2, true);
    for (let group = 0; group < 8; group++) {
      const low = (view.getUint8(at + 4 + (group >> 1)) >> ((group & 1) * 4)) & 15;
      const scale = fround(d * ((low | (((highs >> (group * 2)) & 3) << 4)) - 32));
      for (let i = 0; i < 16; i++) {
        const byte = view.getUint8(at + 8 + group * 16 + i);
        out[o + group * 32 + i] = scale * iq4Values[byte & 15];
        out[o + group * 32 + 16 + i] = scale * iq4Values[byte >> 4];
      }
    }
  },
  // 48 bytes of five trits (32 bytes, then 16), 4 bytes of four, f16 d
  tq1_0(view, at, out, o) {
    const d = f16At(view, at + 52);
    let next = o;
    for (const [start, length, trits] of [[0, 32, 5], [32, 16, 5], [48, 4, 4]]) {
      for (let n = 0; n < trits; n++) {
        for (let i = 0; i < length; i++) out[next++] = d * trit(view.getUint8(at + start + i), powers[n]);
      }
    }
  },
  // 64 bytes of four 2-bit codes, f16 d
  tq2_0(view, at, out, o) {
    const d = f16At(view, at + 64);
    for (let i = 0; i < 256; i++) {
      const code = (view.getUint8(at + (i >> 7) * 32 + (i & 31)) >> (((i >> 5) & 3) * 2)) & 3;
      out[o + i] = d * (code - 1);
    }
  },
  // E8M0 scale, 16 bytes of E2M1 nibbles
  mxfp4(view, at, out, o) {
    const d = e8m0Half(view.getUint8(at));
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(at + 1 + i);
      out[o + i] = d * e2m1Doubled[byte & 15];
      out[o + 16 + i] = d * e2m1Doubled[byte >> 4];
    }
  },
};
