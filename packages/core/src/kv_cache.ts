/**
 * The paged cache of keys and values.
 * @module
 */
import type { Backend } from "./backend.ts";
import { MllmError } from "./errors.ts";
import { Tensor } from "./tensor.ts";
import { keep } from "./tidy.ts";

/** Size and type of a cache: integers of 1 or more. */
export interface KvCacheOptions {
  /** Layers, each with keys and values of its own. */
  readonly layers: number;
  /** Heads of keys and of values (the config's `num_key_value_heads`). */
  readonly kvHeads: number;
  /** Elements per head and token. */
  readonly headDim: number;
  /** Tokens that must fit; rounded up to whole pages. */
  readonly capacity: number;
  /** Tokens per page; 64 when absent. */
  readonly pageSize?: number;
  /** Element type; "f16" when absent. Ops take and give f32 in either case. */
  readonly dtype?: "f32" | "f16";
}

/** Keys and values of one layer: [pages, kvHeads, pageSize, headDim]. */
export interface KvLayer {
  /** Keys, after the rotary embedding where the model has one. */
  readonly k: Tensor;
  /** Values, in the same pages as their keys. */
  readonly v: Tensor;
}

/**
 * Keys and values of all layers, in pages of tokens. The caller gives positions; to forget a tail, go on at a smaller
 * position.
 */
export class KvCache implements Disposable {
  /** Keys and values of each layer, from the first. */
  readonly layers: readonly KvLayer[];
  /** i32 [pages]: physical page of each logical page. */
  readonly pages: Tensor;
  /** Tokens that fit: whole pages, so perhaps more than asked for. */
  readonly capacity: number;
  /** Tokens in each page. */
  readonly pageSize: number;
  /** Bytes of all keys and values at full capacity; the system commits them as pages are written. */
  readonly bytes: number;

  /** Throws `invalid_argument` for sizes below 1 and `out_of_memory`. */
  constructor(
    /** Where the memory is. */
    readonly backend: Backend,
    /** The sizes that it was made with. */
    readonly options: KvCacheOptions,
  ) {
    const { layers, kvHeads, headDim, capacity, pageSize = 64, dtype = "f16" } = options;
    for (const [name, value] of Object.entries({ layers, kvHeads, headDim, capacity, pageSize })) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new MllmError("invalid_argument", `KvCache: ${name} must be a positive integer, not ${value}`);
      }
    }
    const pages = Math.ceil(capacity / pageSize);
    this.pageSize = pageSize;
    this.capacity = pages * pageSize;
    this.bytes = KvCache.bytesFor(options);
    const made: Tensor[] = [];
    const make = (): Tensor => {
      // Not cleared: attention reads nothing behind the last token, and untouched pages cost no memory.
      const tensor = keep(Tensor.empty(backend, [pages, kvHeads, pageSize, headDim], dtype));
      made.push(tensor);
      return tensor;
    };
    try {
      this.layers = Array.from(
        { length: layers },
        (_, i) => ({ k: make().named(`k.${i}`), v: make().named(`v.${i}`) }),
      );
      this.pages = keep(Tensor.from(backend, Int32Array.from({ length: pages }, (_, i) => i), [pages])).named("pages");
    } catch (error) {
      for (const tensor of made) tensor.free();
      throw error;
    }
  }

  /** Bytes that a cache with these options takes. */
  static bytesFor({ layers, kvHeads, headDim, capacity, pageSize = 64, dtype = "f16" }: KvCacheOptions): number {
    return Math.ceil(capacity / pageSize) * pageSize * kvHeads * headDim * layers * 2 * (dtype === "f16" ? 2 : 4);
  }

  /** Frees all keys and values. */
  [Symbol.dispose](): void {
    for (const { k, v } of this.layers) {
      k.free();
      v.free();
    }
    this.pages.free();
  }
}
