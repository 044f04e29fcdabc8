/** A seeded generator of 32-bit integers: sfc32 (Chris Doty-Humphrey, PractRand). */
export class Random {
  #a = 0;
  #b = 0;
  #c: number;
  #counter = 1;

  constructor(seed: number, stream = 0) {
    this.#c = seed | 0;
    this.#b = stream | 0;
    for (let i = 0; i < 15; i++) this.u32();
  }

  /** Uniform in 0 … 2^32 - 1. */
  u32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** Uniform integer in 0 … n - 1. */
  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n);
  }

  /** `count` normal values of this standard deviation (Box and Muller). */
  normal(count: number, deviation: number): Float32Array {
    const out = new Float32Array(count);
    for (let i = 0; i < count; i += 2) {
      const radius = deviation * Math.sqrt(-2 * Math.log((this.u32() + 1) / 2 ** 32));
      const angle = (2 * Math.PI * this.u32()) / 2 ** 32;
      out[i] = radius * Math.cos(angle);
      if (i + 1 < count) out[i + 1] = radius * Math.sin(angle);
    }
    return out;
  }
}
