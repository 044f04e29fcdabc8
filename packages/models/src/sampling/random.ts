/**
 * xoshiro128** by Blackman and Vigna (2018), seeded through splitmix32: small, fast in 32-bit integers, and the same
 * numbers on every machine for one seed.
 */
export class Random {
  readonly #state = new Uint32Array(4);

  /** @param seed a whole number; two of at most 53 bits never start in the same state */
  constructor(seed: number) {
    const low = seed >>> 0;
    const high = Math.floor(seed / 2 ** 32) | 0;
    let mix = low;
    for (let i = 0; i < 4; i++) {
      mix = (mix + 0x9e3779b9) | 0;
      // The first word tells the low halves apart, each of the others the high halves.
      if (i === 1) mix = (mix + Math.imul(high, 0x85ebca6b)) | 0;
      let z = mix;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      this.#state[i] = z ^ (z >>> 15);
    }
  }

  /** Next 32 random bits. */
  bits(): number {
    const s = this.#state;
    const scaled = Math.imul(s[1], 5);
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0;
    const shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result;
  }

  /** Uniform in [0, 1), 53 bits. */
  next(): number {
    return ((this.bits() >>> 5) * 0x4000000 + (this.bits() >>> 6)) / 0x20000000000000;
  }
}
