/**
 * What views share: a piece of backend memory with a reference count, or a buffer of a graph that is being recorded.
 * @module
 */
import type { GraphBuffer } from "./capture/graph.ts";
import { MllmError } from "./errors.ts";
import { formatMiB } from "./format.ts";

/** Something that must live as long as memory borrowed from it (a mapped file). */
export interface Owner {
  /** One more borrower: what was lent stays until as many `release` calls came. */
  retain(): void;
  /** One borrower less; with the last one the owner may go. */
  release(): void;
}

/** Where memory comes from and goes back to: the part of `Backend` that storages need. */
export interface Allocator {
  readonly isClosed: boolean;
  allocate(bytes: number): number;
  release(address: number, bytes: number): void;
}

/** What kernels may rely on. */
const ALIGNMENT = 64;

/** Memory that nobody has to give back. */
const script: Allocator = {
  isClosed: true,
  allocate: () => {
    throw new MllmError("internal", "script memory comes with its storage");
  },
  release: () => {},
};

interface Held {
  readonly allocator: Allocator;
  /** Absent until deferred memory is used. */
  address?: number;
  readonly bytes: number;
  readonly owner?: Owner;
}

function giveBack({ allocator, address, bytes, owner }: Held): void {
  if (owner !== undefined) owner.release();
  else if (address !== undefined && !allocator.isClosed) allocator.release(address, bytes);
}

/** The last resort for tensors that nobody freed: when no view of a storage is reachable, its memory goes back. */
const finalizer = new FinalizationRegistry<Held>(giveBack);

/** A view of native memory keeps the storage behind it from the finaliser for as long as it is reachable itself. */
const behind = new WeakMap<ArrayBuffer, MemoryStorage>();

/** Memory of a backend, or of JavaScript for it to use, shared by every view of it. Starts with one reference. */
export class MemoryStorage {
  readonly kind = "memory";
  /** Counts writes, so that values derived from the contents know when they are stale. */
  version = 0;
  #references = 1;
  #view?: Uint8Array<ArrayBuffer>;
  readonly #held: Held;

  private constructor(held: Held) {
    this.#held = held;
    finalizer.register(this, held, this);
  }

  /** New uninitialised memory, 64-byte aligned. Throws `out_of_memory`. */
  static allocate(allocator: Allocator, bytes: number): MemoryStorage {
    return new MemoryStorage({ allocator, address: allocator.allocate(bytes), bytes });
  }

  /** The same, but taken when it is first used: `address` then throws `out_of_memory`. */
  static deferred(allocator: Allocator, bytes: number): MemoryStorage {
    return new MemoryStorage({ allocator, bytes });
  }

  /**
   * New memory of JavaScript's own, zeros, 64-byte aligned: views of it stay valid for as long as anybody has them. Throws
   * `out_of_memory`.
   */
  static ofScript(bytes: number): MemoryStorage {
    let buffer: ArrayBuffer;
    try {
      buffer = new ArrayBuffer(bytes + ALIGNMENT - 1);
    } catch (cause) {
      throw new MllmError("out_of_memory", `JavaScript has no array of ${formatMiB(bytes)}`, { cause });
    }
    const start = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer)));
    const address = Math.ceil(start / ALIGNMENT) * ALIGNMENT;
    const storage = new MemoryStorage({ allocator: script, address, bytes });
    storage.#view = new Uint8Array(buffer, address - start, bytes);
    return storage;
  }

  /** Memory that belongs to `owner`, which is retained for as long. */
  static borrow(allocator: Allocator, address: number, bytes: number, owner: Owner): MemoryStorage {
    owner.retain();
    return new MemoryStorage({ allocator, address, bytes, owner });
  }

  get address(): number {
    return this.#held.address ??= this.#held.allocator.allocate(this.bytes);
  }

  get bytes(): number {
    return this.#held.bytes;
  }

  /** Whether the memory belongs to somebody else (a mapped file) and must not be written. */
  get isReadOnly(): boolean {
    return this.#held.owner !== undefined;
  }

  /** Whether script memory was transferred, by `postMessage` for one: it belongs to somebody else then. */
  get isDetached(): boolean {
    return this.#view?.buffer.detached ?? false;
  }

  /** True once every reference is gone. */
  get isFreed(): boolean {
    return this.#references === 0;
  }

  retain(): void {
    if (this.#references === 0) throw new MllmError("internal", "a freed storage can't be retained");
    this.#references++;
  }

  release(): void {
    if (this.#references === 0) throw new MllmError("internal", "a storage was released once too often");
    if (--this.#references > 0) return;
    finalizer.unregister(this);
    this.#view = undefined;
    giveBack(this.#held);
  }

  /** The memory itself, without a copy. Valid until the storage is freed. */
  bytesView(): Uint8Array<ArrayBuffer> {
    if (this.#view === undefined) {
      if (this.bytes === 0) return new Uint8Array(0);
      const pointer = Deno.UnsafePointer.create(BigInt(this.address));
      this.#view = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer!, this.bytes));
      behind.set(this.#view.buffer, this);
    }
    return this.#view;
  }
}

/** Real memory, or a buffer of a graph under capture. */
export type Storage = MemoryStorage | GraphBuffer;
