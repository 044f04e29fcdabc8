/**
 * Tensors: typed, shaped views of backend memory with explicit lifetimes.
 * @module
 */
import type { Backend } from "./backend.ts";
import { byteLength, type DType, dtypes, q8aRowBytes } from "./dtype.ts";
import { MllmError, typeName } from "./errors.ts";
import { copyOut, type NumberArray, toStored } from "./host_data.ts";
import { maxRank } from "./native/abi.ts";
import { type Dim, formatShape, maxDim, maxShape, sameDim } from "./scalar.ts";
import { MemoryStorage, type Owner, type Storage } from "./storage.ts";
import { adopt } from "./tidy.ts";
import {
  contiguousStrides,
  describeView,
  elementBytes,
  isContiguous,
  type Layout,
  reshapeStrides,
  resolveShape,
  type View,
} from "./view.ts";

/** Optional facts about borrowed memory, for `Tensor.fromAddress`. */
export interface BorrowOptions {
  /** Name of the tensor in messages: of the weight, for example. */
  name?: string;
}

/**
 * A tensor, or a view of one: views share the memory, which goes back when the last of them is freed.
 *
 * Free it with `using`, `free()`, or `tidy`; a finaliser is the last resort. Inside `capture` a tensor stands for a
 * value of the program and has no contents to read.
 */
export class Tensor implements Disposable {
  /** Name in error messages: of the weight, for example. Views inherit it. */
  name?: string;
  /**
   * Int8 companion of this tensor's contents, made by `linear` on first use and shared by later ones.
   * @internal
   */
  companion?: { readonly tensor: Tensor; readonly version: number };
  #freed = false;

  /**
   * Takes over one reference to `storage`. Use the static functions instead.
   * @internal
   */
  constructor(
    /** @internal */
    readonly storage: Storage,
    /** @internal */
    readonly byteOffset: number,
    /** Type of the elements. */
    readonly dtype: DType,
    /** Row-major as in PyTorch, slowest dim first; up to 4 dims. */
    readonly shape: readonly Dim[],
    /** Distance of neighbours along each dim, in elements. */
    readonly strides: readonly number[],
    /** Strided, or packed for `linear`. */
    readonly layout: Layout,
    /** The backend that owns the memory and runs the ops. */
    readonly backend: Backend,
  ) {
    adopt(this);
  }

  /**
   * A new contiguous tensor with undefined contents. The last dim of a block type must be whole blocks. Throws
   * `invalid_argument` for more than 4 dims or bad lengths, `out_of_memory`.
   */
  static empty(backend: Backend, shape: readonly number[], dtype: DType = "f32"): Tensor {
    const storage = MemoryStorage.allocate(backend, byteLength(dtype, checkShape(shape)));
    return new Tensor(storage, 0, dtype, shape.slice(), contiguousStrides(shape), "strided", backend);
  }

  /** A new contiguous tensor whose bytes are all zero. Throws as `empty`. */
  static zeros(backend: Backend, shape: readonly number[], dtype: DType = "f32"): Tensor {
    const tensor = Tensor.empty(backend, shape, dtype);
    (tensor.storage as MemoryStorage).bytesView().fill(0);
    return tensor;
  }

  /**
   * A new tensor with these values, row-major. Without a dtype the array's own type is taken. Numbers are converted to
   * f32, f16 or bf16 (to nearest even); for block types (and raw f16/bf16 bits) give the bytes as Uint8Array. Throws
   * `invalid_argument` when the number of values is not that of the shape, else as `empty`.
   */
  static from(backend: Backend, values: NumberArray, shape: readonly number[], dtype?: DType): Tensor {
    const tensor = Tensor.empty(backend, shape, dtype ?? dtypeOfArray(values));
    try {
      return tensor.write(values);
    } catch (error) {
      tensor.free();
      throw error;
    }
  }

  /**
   * A contiguous tensor over memory of somebody else, without a copy (weights in a mapped file). The owner is retained
   * for as long as a view lives. It is read-only. Throws `invalid_argument` for a bad shape.
   */
  static fromAddress(
    backend: Backend,
    address: bigint | number,
    dtype: DType,
    shape: readonly number[],
    owner: Owner,
    options: BorrowOptions = {},
  ): Tensor {
    const storage = MemoryStorage.borrow(backend, Number(address), byteLength(dtype, checkShape(shape)), owner);
    const tensor = new Tensor(storage, 0, dtype, shape.slice(), contiguousStrides(shape), "strided", backend);
    tensor.name = options.name;
    return tensor;
  }

  /** Sets the name for messages and returns the tensor itself. */
  named(name: string): this {
    this.name = name;
    return this;
  }

  /** Whether the elements lie in row-major order without gaps. */
  get isContiguous(): boolean {
    return this.layout === "strided" && isContiguous(this.shape, this.strides);
  }

  /** True after `free`: every other use throws. */
  get isFreed(): boolean {
    return this.#freed;
  }

  /** Throws `invalid_argument` when the tensor was freed; `use` says by what it is wanted, `role` as which operand. */
  assertLive(use: string, role?: string): void {
    if (!this.#freed) return;
    throw new MllmError("invalid_argument", `${use}: ${describeView(this, role)} was freed`, {
      next: "`free`, the end of a `using` or `tidy`, or the dispose of the model, block or cache that has it did that",
    });
  }

  /**
   * A view of the same elements in another shape; one dim may be -1. Throws `invalid_argument` when the counts differ
   * or only a copy could do it (`copy` the tensor first).
   */
  reshape(...dims: readonly Dim[]): Tensor {
    this.#checkView("reshape");
    const shape = resolveShape(this.shape, dims);
    const strides = this.#keepsBlocks(shape) ? reshapeStrides(this.shape, this.strides, shape) : undefined;
    if (strides === undefined) {
      throw new MllmError(
        "invalid_argument",
        `reshape: ${describeView(this)} with strides [${this.strides}] can't be seen as ${formatShape(shape)}`,
        { next: "Copy it first" },
      );
    }
    return this.#view(this.byteOffset, shape, strides);
  }

  /**
   * A view with the dims in another order: `permute(1, 0, 2)`. Throws `invalid_argument` when `axes` is no permutation,
   * or would move the dim that holds blocks.
   */
  permute(...axes: readonly number[]): Tensor {
    this.#checkView("permute");
    const rank = this.shape.length;
    const sorted = axes.toSorted((a, b) => a - b);
    if (axes.length !== rank || sorted.some((axis, i) => axis !== i)) {
      throw new MllmError(
        "invalid_argument",
        `permute: [${axes}] is no order of the ${rank} dims of ${describeView(this)}`,
      );
    }
    if (dtypes[this.dtype].quantized && axes[rank - 1] !== rank - 1) {
      throw new MllmError(
        "invalid_argument",
        `permute: the last dim of ${describeView(this)} holds blocks and stays last`,
      );
    }
    return this.#view(this.byteOffset, axes.map((axis) => this.shape[axis]), axes.map((axis) => this.strides[axis]));
  }

  /** A view with two dims exchanged; negative axes count from the end. Throws as `permute`. */
  transpose(a: number, b: number): Tensor {
    const axes = this.shape.map((_, i) => i);
    [axes[this.#axis(a)], axes[this.#axis(b)]] = [this.#axis(b), this.#axis(a)];
    return this.permute(...axes);
  }

  /**
   * A view of `length` entries of one dim from `start` on; a negative axis counts from the end. Throws
   * `invalid_argument` out of the dim or inside a block, `unsupported` for a symbolic dim.
   */
  narrow(axis: number, start: number, length: number): Tensor {
    this.#checkView("narrow");
    const at = this.#axis(axis);
    const dim = this.shape[at];
    if (typeof dim !== "number") {
      throw new MllmError("unsupported", `narrow: dim ${at} of ${describeView(this)} is symbolic`, {
        next: "Use takeRows",
      });
    }
    if (!Number.isInteger(start) || !Number.isInteger(length) || start < 0 || length < 0 || start + length > dim) {
      throw new MllmError(
        "invalid_argument",
        `narrow: ${start}+${length} is outside dim ${at} of ${describeView(this)}`,
      );
    }
    const shape = this.shape.with(at, length);
    if (this.dtype === "q8a") return this.#view(this.byteOffset + this.#q8aOffset(at, start), shape, this.strides);
    const offset = elementBytes(this.dtype, start * this.strides[at]);
    if (at === shape.length - 1) elementBytes(this.dtype, length);
    return this.#view(this.byteOffset + offset, shape, this.strides);
  }

  /**
   * The values row-major as f32: any strides; f16, bf16, block types and packed weights are widened. A copy. Throws
   * `invalid_argument` when the tensor was freed or belongs to a capture.
   */
  toFloat32Array(): Float32Array<ArrayBuffer> {
    this.#memory("toFloat32Array");
    if (this.dtype === "f32" && this.isContiguous) return new Float32Array(this.toBytes().buffer);
    return Float32Array.from(this.toNumbers("toFloat32Array"));
  }

  /** The values of an integer tensor, row-major; those of other types are cut off to integers. A copy. */
  toInt32Array(): Int32Array<ArrayBuffer> {
    return Int32Array.from(this.toNumbers("toInt32Array"));
  }

  /**
   * The stored bytes of a contiguous or packed tensor, little-endian. A copy. Throws `invalid_argument` for other
   * strides.
   */
  toBytes(): Uint8Array<ArrayBuffer> {
    this.#memory("toBytes");
    if (this.layout === "strided" && !this.isContiguous) {
      throw new MllmError("invalid_argument", `toBytes: ${describeView(this)} is not contiguous`);
    }
    return this.#bytes().slice();
  }

  /** The values row-major, in an array that holds the type exactly. A copy. `use` names the caller in errors. */
  toNumbers(use = "toNumbers"): ArrayLike<number> & Iterable<number> {
    const storage = this.#memory(use);
    if (this.layout !== "strided" || (dtypes[this.dtype].quantized && this.dtype !== "q8a")) return this.#dequantised();
    return copyOut(storage.bytesView(), { ...this.#plainView(), shape: maxShape(this.shape) });
  }

  /**
   * Replaces all values, row-major, converting as `from` does. The tensor must be contiguous and its memory its own.
   * Throws `invalid_argument` otherwise, and when the number of values is wrong.
   */
  write(values: NumberArray): this {
    const storage = this.#memory("write");
    if (!this.isContiguous) throw new MllmError("invalid_argument", `write: ${describeView(this)} is not contiguous`);
    if (storage.isReadOnly) throw new MllmError("invalid_argument", `write: ${describeView(this)} is read-only`);
    const target = this.#bytes();
    const stored = toStored(values, this.dtype);
    if (stored.byteLength !== target.byteLength) {
      throw new MllmError(
        "invalid_argument",
        `write: ${values.length} values (${stored.byteLength} bytes) for ${describeView(this)}`,
      );
    }
    target.set(new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength));
    storage.version++;
    return this;
  }

  /** Gives up this view; the memory goes back with the last view of it. Again is harmless. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.companion?.tensor.free();
    this.companion = undefined;
    this.storage.release();
  }

  /** `free`, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }

  #view(byteOffset: number, shape: readonly Dim[], strides: readonly number[]): Tensor {
    this.storage.retain();
    const view = new Tensor(this.storage, byteOffset, this.dtype, shape, strides, this.layout, this.backend);
    view.name = this.name;
    return view;
  }

  #plainView(): View {
    const { storage, byteOffset, dtype, shape, strides, layout } = this;
    return { storage, byteOffset, dtype, shape, strides, layout };
  }

  #dequantised(): Float32Array<ArrayBuffer> {
    const out = Tensor.empty(this.backend, maxShape(this.shape), "f32");
    try {
      const record = {
        op: "copy" as const,
        variant: 0,
        threads: 0,
        inputs: [this],
        outputs: [out],
        ints: [],
        floats: [],
      };
      this.backend.writer.write(0, record);
      this.backend.submitOne(() => `copy(${describeView(this)})`);
      return new Float32Array(out.#bytes().slice().buffer);
    } finally {
      out.free();
    }
  }

  #bytes(): Uint8Array<ArrayBuffer> {
    const bytes = (this.storage as MemoryStorage).bytesView();
    if (this.layout !== "strided") return bytes;
    return bytes.subarray(this.byteOffset, this.byteOffset + byteLength(this.dtype, maxShape(this.shape)));
  }

  #memory(use: string): MemoryStorage {
    this.assertLive(use);
    if (this.backend.isClosed) {
      throw new MllmError("invalid_argument", `${use}: the backend of ${describeView(this)} is closed`);
    }
    if (this.storage.kind === "memory") return this.storage;
    throw new MllmError("invalid_argument", `${use}: ${describeView(this)} is being captured and has no values yet`, {
      next: "Return it from the captured function and read it from the program",
    });
  }

  #checkView(use: string): void {
    this.assertLive(use);
    if (this.layout !== "strided") throw new MllmError("unsupported", `${use}: ${describeView(this)} has no views`);
  }

  /** Rows of q8a have their scales behind their codes: only whole rows can be picked. */
  #q8aOffset(axis: number, start: number): number {
    if (axis !== 0 || this.shape.length !== 2) {
      throw new MllmError("invalid_argument", `narrow: only rows of ${describeView(this)} can be picked`);
    }
    return start * q8aRowBytes(maxDim(this.shape[1]));
  }

  #keepsBlocks(shape: readonly Dim[]): boolean {
    if (!dtypes[this.dtype].quantized) return true;
    return shape.length > 0 && sameDim(shape[shape.length - 1], this.shape[this.shape.length - 1]);
  }

  #axis(axis: number): number {
    const at = axis < 0 ? axis + this.shape.length : axis;
    if (!Number.isInteger(at) || at < 0 || at >= this.shape.length) {
      throw new MllmError("invalid_argument", `${describeView(this)} has no dim ${axis}`);
    }
    return at;
  }
}

function checkShape(shape: readonly number[]): readonly number[] {
  if (!Array.isArray(shape)) {
    throw new MllmError("invalid_argument", `a shape must be an array of lengths, not ${typeName(shape)}`);
  }
  if (shape.length > maxRank || shape.some((dim) => !Number.isSafeInteger(dim) || dim < 0)) {
    throw new MllmError("invalid_argument", `${formatShape(shape)} is no shape: up to ${maxRank} dims of 0 or more`);
  }
  return shape;
}

function dtypeOfArray(values: NumberArray): DType {
  if (values instanceof Float32Array) return "f32";
  if (values instanceof Int32Array) return "i32";
  if (values instanceof Float64Array) return "f64";
  if (values instanceof Float16Array) return "f16";
  if (values instanceof BigInt64Array) return "i64";
  if (values instanceof Int8Array) return "i8";
  if (values instanceof Int16Array) return "i16";
  if (values instanceof Uint8Array) return "u8";
  return "f32";
}
