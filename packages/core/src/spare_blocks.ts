/**
 * Small blocks of memory that were freed and wait for the next tensor of their size.
 *
 * A native call costs about a microsecond; eager code frees and allocates the same few sizes again and again.
 * @module
 */

/** Larger blocks go straight back. */
const blockBytesMax = 1 << 18;
/** All that may wait. */
const spareBytesMax = 1 << 24;

/** The size that is asked of the backend for a block: whole cache lines. */
export function roundedBlock(bytes: number): number {
  return Math.max(64, Math.ceil(bytes / 64) * 64);
}

/** Freed blocks by size. */
export class SpareBlocks {
  readonly #bySize = new Map<number, number[]>();
  #bytes = 0;

  /** The address of a block of that size, if one waits. */
  take(bytes: number): number | undefined {
    if (bytes > blockBytesMax) return undefined;
    const size = roundedBlock(bytes);
    const address = this.#bySize.get(size)?.pop();
    if (address !== undefined) this.#bytes -= size;
    return address;
  }

  /** Keeps a block; false when there is no room and it must go back. */
  put(address: number, bytes: number): boolean {
    const size = roundedBlock(bytes);
    if (bytes > blockBytesMax || this.#bytes + size > spareBytesMax) return false;
    const list = this.#bySize.get(size);
    if (list === undefined) this.#bySize.set(size, [address]);
    else list.push(address);
    this.#bytes += size;
    return true;
  }

  /** Takes out every block. */
  drain(): number[] {
    const all = [...this.#bySize.values()].flat();
    this.#bySize.clear();
    this.#bytes = 0;
    return all;
  }
}
