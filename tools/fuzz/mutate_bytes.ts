import type { Random } from "../random_model/random.ts";

/** Numbers that parsers trip over. */
const edges: readonly bigint[] = [
  0n,
  1n,
  2n,
  7n,
  31n,
  255n,
  65535n,
  2n ** 24n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 40n,
  2n ** 52n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 60n,
  2n ** 61n,
  2n ** 62n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 32n,
  2n ** 64n - 1n,
];

/** One of the edges, a number near `size`, or near `old`. */
export function hostileNumber(random: Random, size: number, old: bigint): bigint {
  const near = BigInt(random.below(65) - 32);
  switch (random.below(6)) {
    case 0:
      return BigInt(size) + near;
    case 1:
      return old + near;
    case 2:
      return old * BigInt(random.below(1000));
    case 3:
      return BigInt(random.below(Math.max(1, size)));
    default:
      return edges[random.below(edges.length)];
  }
}

/** Writes `value` modulo 2^(8·bytes). */
export function putNumber(file: Uint8Array, at: number, bytes: number, value: bigint): void {
  for (let i = 0; i < bytes && at + i < file.length; i++) file[at + i] = Number((value >> BigInt(8 * i)) & 255n);
}

type ByteMutator = (random: Random, file: Uint8Array, other: Uint8Array) => Uint8Array;

function join(...parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** An offset; half of the time near the start, where headers are. */
function offset(random: Random, file: Uint8Array): number {
  return random.below((random.below(2) === 0 ? Math.min(file.length, 400) : file.length) + 1);
}

const mutators: readonly ByteMutator[] = [
  function flipBits(random, file) {
    const out = file.slice();
    for (let i = random.below(8); i >= 0 && out.length > 0; i--) {
      const at = Math.min(offset(random, out), out.length - 1);
      out[at] ^= 1 << random.below(8);
    }
    return out;
  },
  function setByte(random, file) {
    const out = file.slice();
    const at = Math.min(offset(random, out), out.length - 1);
    if (at >= 0) out[at] = [0, 0xff, 0x80, 0x7f, 0x22, 0x5c, 0x7b, 0x5b][random.below(8)];
    return out;
  },
  function setNumber(random, file) {
    const out = file.slice();
    putNumber(out, offset(random, out), [1, 2, 4, 8][random.below(4)], hostileNumber(random, file.length, 1n));
    return out;
  },
  function truncate(random, file) {
    return file.slice(0, offset(random, file));
  },
  function append(random, file) {
    return join(file, new Uint8Array(random.below(100)).fill(random.below(256)));
  },
  function remove(random, file) {
    const at = offset(random, file);
    return join(file.subarray(0, at), file.subarray(at + 1 + random.below(40)));
  },
  function repeat(random, file) {
    const at = offset(random, file);
    const part = file.subarray(at, at + 1 + random.below(200));
    return join(file.subarray(0, at), ...Array(1 + random.below(8)).fill(part), file.subarray(at));
  },
  function splice(random, file, other) {
    return join(file.subarray(0, offset(random, file)), other.subarray(offset(random, other)));
  },
  function insertOther(random, file, other) {
    const at = offset(random, file);
    const from = offset(random, other);
    return join(file.subarray(0, at), other.subarray(from, from + random.below(300)), file.subarray(at));
  },
];

/** Applies one to three mutators that know nothing of the format. */
export function mutateBytes(random: Random, file: Uint8Array, other: Uint8Array): Uint8Array {
  let out = file;
  for (let i = random.below(3); i >= 0; i--) out = mutators[random.below(mutators.length)](random, out, other);
  return out;
}
