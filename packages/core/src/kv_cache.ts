/**
 * The paged cache of keys and values.
 * @module
 */
import type { Backend } from "./backend.ts";
import { byteLength, dtypes } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import { kvHeadDimMax, kvPageSizeMax } from "./native/abi.ts";
import { MemoryStorage } from "./storage.ts";
import { Tensor } from "./tensor.ts";
import { keep } from "./tidy.ts";
import { contiguousStrides } from "./view.ts";

/**
 * Element type of keys or of values: f32 rounds nothing, f16 takes half of it. q8_0 and q4_0 take 8.5 and 4.5 bits
 * (keys a quarter of a bit more): rows are rotated and quantised as they are appended (native/kernels/kv_page.zig), and
 * attention reads the codes.
 */
export type KvDType = "f32" | "f16" | "q8_0" | "q4_0";

/** Every {@linkcode KvDType}, the largest first. */
export const kvDTypes: readonly KvDType[] = ["f32", "f16", "q8_0", "q4_0"];

/**
 * Refuses what is no {@linkcode KvDType}, and one that heads of `headDim` elements do not suit; `name` is the option's.
 *
 * @throws {MllmError} `invalid_argument`
 */
export function checkKvDType(name: string, dtype: KvDType, headDim: number): void {
  if (!kvDTypes.includes(dtype)) {
    throw new MllmError(
      "invalid_argument",
      `${name} must be one of ${kvDTypes.join(", ")}, not ${JSON.stringify(dtype)}`,
    );
  }
  if (!isQuantized(dtype) || (headDim % 32 === 0 && headDim <= kvHeadDimMax)) return;
  throw new MllmError(
    "invalid_argument",
    `${name}: ${dtype} takes heads of a multiple of 32 up to ${kvHeadDimMax} elements, not ${headDim}`,
    { next: "Take f16 or f32" },
  );
}

/** Size and types of a cache. Sizes are integers of 1 or more. */
export interface KvCacheOptions {
  /** Layers, each with keys and values of its own. */
  readonly layers: number;
  /** Heads of keys and of values (the config's `num_key_value_heads`). */
  readonly kvHeads: number;
  /** Elements per head and token; for q8_0 and q4_0 a multiple of 32. */
  readonly headDim: number;
  /** Tokens that must fit; rounded up to whole pages. */
  readonly capacity: number;
  /** Tokens per page; 64 when absent. For q8_0 and q4_0 a multiple of 16 up to 512. */
  readonly pageSize?: number;
  /** Element type of the keys; "f16" when absent. Ops take and give f32 with any type. */
  readonly keyDtype?: KvDType;
  /** Element type of the values; "f16" when absent. */
  readonly valueDtype?: KvDType;
}

/**
 * Keys and values of one layer, each of its own type: [physical pages, kvHeads, pageSize, headDim] of the whole cache,
 * from the layer's first page on. The pages of the layers take turns, so that the memory in use has no gaps; page
 * `cache.pages[i]` is the layer's own for each i.
 */
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
  /** Keys of all layers: [pages · layers, kvHeads, pageSize, headDim]. */
  readonly keys: Tensor;
  /** Values of all layers, likewise. */
  readonly values: Tensor;
  /** i32 [pages]: physical page of each logical page, from a layer's first on. */
  readonly pages: Tensor;
  /** Tokens that fit: whole pages, so perhaps more than asked for. */
  readonly capacity: number;
  /** Tokens in each page. */
  readonly pageSize: number;
  /** Bytes of all keys and values at full capacity; the system commits them as pages are written. */
  readonly bytes: number;
  readonly #made: readonly Tensor[];

  /** Throws `invalid_argument` for sizes that are wrong or do not suit the types, and `out_of_memory`. */
  constructor(
    /** Where the memory is. */
    readonly backend: Backend,
    /** The sizes that it was made with. */
    readonly options: KvCacheOptions,
  ) {
    const { layers, kvHeads, headDim, capacity, pageSize, keyDtype, valueDtype } = withDefaults(options);
    const pages = Math.ceil(capacity / pageSize);
    this.pageSize = pageSize;
    this.capacity = pages * pageSize;
    this.bytes = KvCache.bytesFor(options);
    const shape = [pages * layers, kvHeads, pageSize, headDim];
    const made: Tensor[] = [];
    const own = (tensor: Tensor, name: string): Tensor => {
      made.push(tensor);
      return keep(tensor).named(name);
    };
    try {
      this.keys = own(cacheTensor(backend, keyDtype, "kv_keys", shape), "k");
      this.values = own(cacheTensor(backend, valueDtype, "kv_values", shape), "v");
      this.layers = Array.from({ length: layers }, (_, i) => ({
        k: own(fromPage(this.keys, i, layers), `k.${i}`),
        v: own(fromPage(this.values, i, layers), `v.${i}`),
      }));
      const table = Int32Array.from({ length: pages }, (_, i) => i * layers);
      this.pages = own(Tensor.from(backend, table, [pages]), "pages");
    } catch (error) {
      for (const tensor of made) tensor.free();
      throw error;
    }
    this.#made = made;
  }

  /** Bytes that a cache with these options takes. Throws `invalid_argument` as the constructor does. */
  static bytesFor(options: KvCacheOptions): number {
    const { layers, kvHeads, headDim, capacity, pageSize, keyDtype, valueDtype } = withDefaults(options);
    const shape = [Math.ceil(capacity / pageSize), kvHeads, pageSize, headDim];
    return layers * (cacheBytes(keyDtype, "kv_keys", shape) + cacheBytes(valueDtype, "kv_values", shape));
  }

  /** Frees all keys and values. */
  [Symbol.dispose](): void {
    for (const tensor of this.#made) tensor.free();
  }
}

/**
 * Keys or values [pages, kvHeads, pageSize, headDim] of one layer; `layout` matters for quantised types alone. Not
 * cleared: attention reads nothing behind the last token, and untouched pages cost no memory.
 * @internal
 */
export function cacheTensor(
  backend: Backend,
  dtype: KvDType,
  layout: "kv_keys" | "kv_values",
  shape: readonly number[],
): Tensor {
  const storage = MemoryStorage.allocate(backend, cacheBytes(dtype, layout, shape));
  const strides = contiguousStrides(shape);
  return new Tensor(storage, 0, dtype, shape, strides, isQuantized(dtype) ? layout : "strided", backend);
}

/** A view of a cache from physical page `first` to the last one that a layer has there, `layers` pages apart. */
function fromPage(all: Tensor, first: number, layers: number): Tensor {
  const { storage, dtype, shape, strides, layout, backend } = all;
  const physical = shape[0] as number;
  storage.retain();
  const view = [physical - layers + 1, ...shape.slice(1)];
  return new Tensor(
    storage,
    first * (storage as MemoryStorage).bytes / physical,
    dtype,
    view,
    strides,
    layout,
    backend,
  );
}

/** Pages of quantised keys hold a reference beside their rows: headDim f16 per head (native/kernels/kv_page.zig). */
function cacheBytes(dtype: KvDType, layout: "kv_keys" | "kv_values", shape: readonly number[]): number {
  const [pages, kvHeads, , headDim] = shape;
  const references = isQuantized(dtype) && layout === "kv_keys" ? pages * kvHeads * headDim * 2 : 0;
  return byteLength(dtype, shape) + references;
}

const isQuantized = (dtype: KvDType): boolean => dtypes[dtype].quantized;

/** The options with what they leave open filled in, checked. */
function withDefaults(options: KvCacheOptions): Required<KvCacheOptions> {
  const { layers, kvHeads, headDim, capacity, pageSize = 64, keyDtype = "f16", valueDtype = "f16" } = options;
  for (const [name, value] of Object.entries({ layers, kvHeads, headDim, capacity, pageSize })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new MllmError("invalid_argument", `KvCache: ${name} must be a positive integer, not ${value}`);
    }
  }
  for (const [name, dtype] of Object.entries({ keyDtype, valueDtype })) {
    checkKvDType(`KvCache: ${name}`, dtype, headDim);
    if (!isQuantized(dtype) || (pageSize % 16 === 0 && pageSize <= kvPageSizeMax)) continue;
    throw new MllmError(
      "invalid_argument",
      `KvCache: pageSize must be a multiple of 16 up to ${kvPageSizeMax} for ${dtype} (${name}), not ${pageSize}`,
    );
  }
  return { layers, kvHeads, headDim, capacity, pageSize, keyDtype, valueDtype };
}
