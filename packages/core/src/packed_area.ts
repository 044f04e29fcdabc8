/**
 * One block of memory for many packed weights.
 * @module
 */
import type { Backend } from "./backend.ts";
import type { DType } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import { MemoryStorage } from "./storage.ts";
import { Tensor } from "./tensor.ts";
import { contiguousStrides } from "./view.ts";

/**
 * Room for weights that `packWeight` puts one behind the other: large pages, which the system gives to large blocks only,
 * hold the small ones too, and reading goes on from one into the next. The memory goes back when the area is disposed
 * and all weights in it are freed.
 */
export class PackedArea implements Disposable {
  readonly #storage: MemoryStorage;
  #used = 0;

  /** Room for `bytes`, the sum of `Backend.packedSize`; committed as it fills. Throws `out_of_memory`. */
  constructor(readonly backend: Backend, bytes: number) {
    this.#storage = MemoryStorage.allocate(backend, bytes);
  }

  /**
   * The next place, for packed weights [n, k] of `bytes`; contents undefined. Throws `invalid_argument` when the area is
   * full.
   * @internal
   */
  place(dtype: DType, shape: readonly number[], bytes: number): Tensor {
    if (this.#used + bytes > this.#storage.bytes) {
      throw new MllmError("invalid_argument", `the area of ${this.#storage.bytes} bytes has no ${bytes} left`);
    }
    const storage = this.#storage.part(this.#used, bytes);
    this.#used += bytes;
    return new Tensor(storage, 0, dtype, shape, contiguousStrides(shape), "panel16", this.backend);
  }

  /** Gives up the area's own share: no more weights fit. */
  [Symbol.dispose](): void {
    this.#storage.release();
  }
}
