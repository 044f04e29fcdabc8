/**
 * Where the hashes of this process begin, drawn at its start: a vocabulary whose texts or pairs all had one hash could be
 * made for a known number, and to fill a table with it takes quadratic time. No result depends on it, for none depends on
 * the order of a table's places.
 */
export const hashSeed: number = crypto.getRandomValues(new Int32Array(1))[0];

/**
 * A hash continued by a value of up to 32 bits; its low bits are good. The shift, which FNV-1a lacks, lets all bits of the
 * seed take part: without it texts of one length collide for all seeds that share the low 8.
 */
export function hashOn(hash: number, value: number): number {
  const product = Math.imul(hash ^ value, 0x9e3779b1);
  return product ^ (product >>> 15);
}
