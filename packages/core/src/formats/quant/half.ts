/** Conversions between binary32 and the 16-bit floats, on bit patterns, so that NaN payloads and signs survive. */

const scratch = new ArrayBuffer(4);
const asFloat = new Float32Array(scratch);
const asBits = new Uint32Array(scratch);

/** Bit pattern of a number rounded to binary32, as an unsigned 32-bit integer. */
export function f32Bits(value: number): number {
  asFloat[0] = value;
  return asBits[0];
}

/** The binary32 with this bit pattern. */
export function f32FromBits(bits: number): number {
  asBits[0] = bits;
  return asFloat[0];
}

/** binary32 bits to binary16 bits: round to nearest even, overflow to infinity, NaN made quiet. */
export function f16FromF32Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const abs = bits & 0x7fffffff;
  if (abs > 0x7f800000) return sign | 0x7e00 | ((abs >>> 13) & 0x3ff);
  // From 65520 on, the middle between the largest finite value and the next power of two.
  if (abs >= 0x477ff000) return sign | 0x7c00;
  if (abs >= 0x38800000) {
    const r = abs - 0x38000000;
    return sign | ((r + 0xfff + ((r >>> 13) & 1)) >>> 13);
  }
  if (abs <= 0x33000000) return sign;
  // Subnormal: in units of 2^-24.
  const shift = 126 - (abs >>> 23);
  const mantissa = (abs & 0x7fffff) | 0x800000;
  const half = (1 << (shift - 1)) - 1;
  return sign | ((mantissa + half + ((mantissa >>> shift) & 1)) >>> shift);
}

/** binary16 bits of a number (rounded to binary32 first). */
export function toF16(value: number): number {
  return f16FromF32Bits(f32Bits(value));
}

/** Value of a binary16 bit pattern (0..65535); exact. */
export function fromF16(bits: number): number {
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent !== 0 && exponent !== 31) {
    return f32FromBits(((bits & 0x8000) << 16) | ((exponent + 112) << 23) | (mantissa << 13));
  }
  if (exponent === 31) return f32FromBits(((bits & 0x8000) << 16) | 0x7f800000 | (mantissa << 13));
  return (bits & 0x8000 ? -1 : 1) * mantissa * 2 ** -24;
}

/** binary32 bits to bfloat16 bits: round to nearest even, NaN made quiet (ggml_compute_fp32_to_bf16). */
export function bf16FromF32Bits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 64;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) / 65536) & 0xffff;
}
