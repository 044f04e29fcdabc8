/**
 * Backends: what a plugin gives, what an opened one can do.
 * @module
 */
import { CommandWriter } from "./command.ts";
import { type DType, dtypeFromId, dtypes } from "./dtype.ts";
import { type ErrorCode, MllmError } from "./errors.ts";
import { formatMiB } from "./format.ts";
import { type KernelRow, KernelSelector } from "./kernel_selector.ts";
import * as abi from "./native/abi.ts";
import { type NativeLibrary, openLibrary } from "./native/library.ts";
import { roundedBlock, SpareBlocks } from "./spare_blocks.ts";
import type { Owner } from "./storage.ts";

export type { KernelRow } from "./kernel_selector.ts";

/** A backend as a package offers it: a native library and what to know about it before it is opened. */
export interface BackendPlugin {
  /** Short name: `x86`. */
  readonly name: string;
  /** What hardware it is for, in a few words; `doctor` shows it. */
  readonly description: string;
  /** Names of ISA levels, lowest first; empty when there is nothing to choose. */
  readonly levels: readonly string[];
  /**
   * Path of the native library, for `Deno.dlopen`; may unpack it first. Rejects with an MllmError (`unsupported`,
   * `not_found`, `io`) when there is none, saying why.
   */
  library(): Promise<string>;
  /** Rows of the kernel selector, the first that fits decides. */
  readonly kernelRows: readonly KernelRow[];
  /** By level: the register tiles that `linear` has there in int8, in rows, rising; the last is the level's choice. */
  readonly tileRows?: Readonly<Record<string, readonly number[]>>;
  /** By level: from how many rows on `linear` rounds int8 activations otherwise than with fewer. */
  readonly linearThreshold?: Readonly<Record<string, number>>;
}

/** What a backend says about the machine it would run on, or runs on. */
export interface DeviceInfo {
  /** The plugin's name: `x86`. */
  readonly name: string;
  /** Whether it can be opened here. */
  readonly available: boolean;
  /** Why it is not available, naming the fix. */
  readonly reason?: string;
  /** Model of the processor or device, as it names itself. */
  readonly cpu?: string;
  /** Name of its micro-architecture ("zen4", "skylake-x"), by which rows of the kernel selector name it. */
  readonly microarchitecture?: string;
  /** The level in use (or, before opening, the best one). */
  readonly level: string;
  /** Levels this machine can run, lowest first. */
  readonly levels: readonly string[];
  /** The library's other levels, each with the reason why it can't run here. */
  readonly missing: Readonly<Record<string, string>>;
  /** What the device can do, for `doctor`. */
  readonly features: readonly string[];
  /** Physical cores: the default number of threads. 0 when unavailable. */
  readonly cores: number;
  /** Memory of the device in bytes, used or not; the machine's for CPUs. */
  readonly memoryBytes: number;
}

/**
 * How quantised weights meet activations: "i8" quantises these to int8 per block of 32 (`quantizeRows`) and multiplies
 * integers, which is fast; "f32" leaves them as they are and widens the weights.
 */
export type Activations = "i8" | "f32";

/** Choices when opening a backend. */
export interface BackendOptions {
  /** ISA level by name; the best of this machine when absent. */
  readonly level?: string;
  /** Threads including the caller; one per physical core when absent. */
  readonly threads?: number;
  /** How quantised weights meet activations. Default "i8". */
  readonly activations?: Activations;
}

const statusCodes: Readonly<Record<number, ErrorCode>> = {
  [abi.Status.invalid]: "invalid_argument",
  [abi.Status.unsupported]: "unsupported",
  [abi.Status.out_of_memory]: "out_of_memory",
  [abi.Status.io]: "io",
  [abi.Status.internal]: "internal",
  [abi.Status.not_found]: "not_found",
};

/** A file mapped read-only. Tensors borrowed from it keep it mapped after it is disposed. */
export class MappedFile implements Disposable, Owner {
  #references = 1;
  #disposed = false;

  /** Made by `Backend.mapFile`. */
  constructor(
    /** Address of the first byte in this process. */
    readonly address: bigint,
    /** Length of the mapping: of the whole file unless a range was asked for. */
    readonly bytes: number,
    /** Path it was opened by, named in errors. */
    readonly path: string,
    /** @internal */
    readonly unmap: () => void,
  ) {}

  /** One more borrower. Throws `invalid_argument` when the file is no longer mapped. */
  retain(): void {
    if (this.#references === 0) {
      throw new MllmError("invalid_argument", "the file is no longer mapped", { file: this.path });
    }
    this.#references++;
  }

  /** One borrower less; the last unmaps the file. */
  release(): void {
    if (--this.#references === 0) this.unmap();
  }

  /** Gives up the opener's share. Again is harmless. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.release();
  }
}

function describe(library: NativeLibrary): DeviceInfo {
  let bytes = new Uint8Array(4096);
  const length = Number(library.describe(bytes, BigInt(bytes.length)));
  if (length > bytes.length) {
    bytes = new Uint8Array(length);
    library.describe(bytes, BigInt(length));
  }
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(0, length)));
  return {
    name: String(json.name),
    available: json.available === true,
    reason: json.reason || undefined,
    cpu: json.cpu || undefined,
    microarchitecture: json.microarchitecture || undefined,
    level: json.level ?? "",
    levels: json.levels ?? [],
    missing: json.missing ?? {},
    features: json.features ?? [],
    cores: json.cores ?? 1,
    memoryBytes: json.memory_bytes ?? 0,
  };
}

function readError(library: NativeLibrary, handle: bigint): string {
  const bytes = new Uint8Array(1024);
  const length = Number(library.lastError(handle, bytes, BigInt(bytes.length)));
  return new TextDecoder().decode(bytes.subarray(0, Math.min(length, bytes.length))) || "the backend gave no reason";
}

/** Says what a plugin finds on this machine. Never throws: what is missing becomes `available: false` and a reason. */
export async function probeBackend(plugin: BackendPlugin): Promise<DeviceInfo> {
  try {
    return describe(openLibrary(await plugin.library()));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return {
      name: plugin.name,
      available: false,
      reason,
      level: "",
      levels: [],
      missing: {},
      features: [],
      cores: 0,
      memoryBytes: 0,
    };
  }
}

/**
 * Opens a backend: loads its library, checks the ABI version and starts its threads. Dispose it when everything on it
 * is freed.
 *
 * @throws {MllmError} `unsupported` when the machine lacks what it needs or the level is not one of its levels,
 * `not_found` or `io` when the library can't be loaded, `invalid_argument` for no plugin, a bad thread count or unknown
 * activations, `backend` when the native side refuses, and what `plugin.library()` throws
 */
export async function openBackend(plugin: BackendPlugin, options: BackendOptions = {}): Promise<Backend> {
  const { level, threads = 0, activations = "i8" } = options;
  if (typeof plugin?.library !== "function") {
    throw new MllmError("invalid_argument", "no backend plugin is given", {
      next: "Import one, such as x86 of @mllm/backend-x86; loadModel takes it as { backend: x86 }",
    });
  }
  if (activations !== "i8" && activations !== "f32") {
    throw new MllmError(
      "invalid_argument",
      `\`activations\` must be "i8" or "f32", not ${JSON.stringify(activations)}`,
    );
  }
  if (!Number.isInteger(threads) || threads < 0 || threads > abi.maxThreads) {
    throw new MllmError("invalid_argument", `${threads} threads are not possible: 1 to ${abi.maxThreads}`);
  }
  const library = openLibrary(await plugin.library());
  const device = describe(library);
  if (!device.available) {
    throw new MllmError(
      "unsupported",
      `backend ${plugin.name} is not available: ${device.reason ?? "no reason given"}`,
    );
  }
  if (level !== undefined && !device.levels.includes(level)) {
    const reason = device.missing[level] ?? "there is no such level";
    throw new MllmError("unsupported", `backend ${plugin.name} can't run at level "${level}" here: ${reason}`, {
      next: `It has ${device.levels.join(", ")}`,
    });
  }
  const bytes = new Uint8Array(abi.OpenOptions.size);
  new DataView(bytes.buffer).setUint32(abi.OpenOptions.offset.threads, threads, true);
  new TextEncoder().encodeInto(level ?? "", bytes.subarray(abi.OpenOptions.offset.level, bytes.length - 1));
  const handle = library.open(bytes);
  if (handle === 0n) throw new MllmError("backend", `backend ${plugin.name} did not open: ${readError(library, 0n)}`);
  return new Backend(
    plugin,
    { ...device, level: level ?? device.level },
    threads || Math.min(device.cores, abi.maxThreads),
    activations,
    library,
    handle,
  );
}

/** An opened backend: memory, mapped files, and the execution of op records. Made by `openBackend`. */
export class Backend implements Disposable {
  /** Chooses kernel variants and thread counts. Another one counts for the next eager op and capture. */
  selector: KernelSelector;
  /**
   * For one op at a time; reused by every eager op.
   * @internal
   */
  readonly writer: CommandWriter;
  #memoryInUse = 0;
  #memoryPeak = 0;
  #allocations = 0;
  #closed = false;
  #runs = 0;
  readonly #blocks = new SpareBlocks();
  readonly #writerAddress: bigint;

  /**
   * Use `openBackend`.
   * @internal
   */
  constructor(
    /** The plugin it was opened from. */
    readonly plugin: BackendPlugin,
    /** What was found, and the level in use. */
    readonly device: DeviceInfo,
    /** Threads asked for, the caller included; fewer work where the system refuses to start them. */
    readonly threads: number,
    /** How `linear` treats activations when weights are quantised. */
    readonly activations: Activations,
    /** @internal */
    readonly library: NativeLibrary,
    /** @internal */
    readonly handle: bigint,
  ) {
    this.selector = new KernelSelector(plugin.kernelRows, device.level, device.microarchitecture);
    this.writer = new CommandWriter(1);
    this.#writerAddress = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.writer.bytes)));
  }

  /**
   * Numbers of tokens, rising, from which on a run of a prompt rounds otherwise than a shorter one: runs beyond the
   * last give a token the same bits whatever their length. None with f32 activations.
   */
  get runThresholds(): readonly number[] {
    if (this.activations !== "i8") return [];
    const linear = this.plugin.linearThreshold?.[this.device.level];
    return linear === undefined ? [abi.attentionI8TokensMin] : [abi.attentionI8TokensMin, linear];
  }

  /** Bytes of tensors, caches and programs' inputs and outputs that are not freed yet; mapped files do not count. */
  get memoryInUse(): number {
    return this.#memoryInUse;
  }

  /** The largest `memoryInUse` since the last `resetMemoryPeak`. */
  get memoryPeak(): number {
    return this.#memoryPeak;
  }

  /** Lets `memoryPeak` start again from what is in use. */
  resetMemoryPeak(): void {
    this.#memoryPeak = this.#memoryInUse;
  }

  /** Number of pieces of memory that are not freed yet. */
  get liveAllocations(): number {
    return this.#allocations;
  }

  /** True after dispose. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /**
   * Whether a program runs asynchronously on it: until that ends, every other call that runs something blocks its thread.
   */
  get isRunning(): boolean {
    return this.#runs > 0;
  }

  /**
   * Address of new memory, 64-byte aligned, not cleared, for owners that remember the size. Throws `out_of_memory`, or
   * `invalid_argument` for a size that is none or a closed backend.
   */
  allocate(bytes: number): number {
    this.#check();
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new MllmError("invalid_argument", `${bytes} bytes can't be allocated`);
    }
    const address = this.#blocks.take(bytes) ?? this.#allocateNew(bytes);
    if (address === 0) {
      throw new MllmError(
        "out_of_memory",
        `${formatMiB(bytes)} more than the ${formatMiB(this.#memoryInUse)} in use do not fit`,
      );
    }
    this.#memoryInUse += bytes;
    if (this.#memoryInUse > this.#memoryPeak) this.#memoryPeak = this.#memoryInUse;
    this.#allocations++;
    return address;
  }

  /** Gives back memory from `allocate`; `bytes` must be what was asked for. */
  release(address: number, bytes: number): void {
    this.#memoryInUse -= bytes;
    this.#allocations--;
    if (!this.#blocks.put(address, bytes)) this.library.free(this.handle, BigInt(address));
  }

  /**
   * Maps a file, or `bytes` of it from `offset` on, read-only; dispose the result when nothing will be borrowed from it
   * any more: what was read of it counts as this process's memory until then. Throws `not_found` when there is no such
   * file, `out_of_memory` when the address space does not hold it, and `io`, with the system's reason, when it is empty,
   * ends before the range does or can't be mapped.
   */
  mapFile(path: string, { offset = 0, bytes = 0 }: { offset?: number; bytes?: number } = {}): MappedFile {
    this.#check();
    const name = new TextEncoder().encode(`${path}\0`);
    const out = new Uint8Array(abi.MappedFile.size);
    const status = this.library.mapFile(this.handle, name, BigInt(offset), BigInt(bytes), out);
    if (status !== 0) {
      throw this.failure(status, "the file can't be mapped", { known: `map_file: ${path}: `, file: path });
    }
    const view = new DataView(out.buffer);
    const address = view.getBigUint64(abi.MappedFile.offset.address, true);
    const length = view.getBigUint64(abi.MappedFile.offset.bytes, true);
    return new MappedFile(address, Number(length), path, () => {
      if (!this.#closed) this.library.unmapFile(this.handle, address, length);
    });
  }

  /**
   * Bytes and element type that weights [n, k] of type `dtype` take in panel16 layout; what `packWeight` will give.
   * Throws `unsupported` when they can't be packed.
   */
  packedSize(dtype: DType, n: number, k: number): { bytes: number; dtype: DType } {
    this.#check();
    const out = new Uint8Array(4);
    const bytes = Number(this.library.packedBytes(this.handle, dtypes[dtype].id, BigInt(n), BigInt(k), out));
    if (bytes === 0) {
      throw new MllmError("unsupported", `pack_weight: backend ${this.plugin.name} can't pack ${dtype} [${n}, ${k}]`);
    }
    return { bytes, dtype: dtypeFromId(new DataView(out.buffer).getUint32(0, true)) };
  }

  /**
   * Runs the command in `writer`; `describe` gives the call for an error: the op and its operands in brackets.
   * @internal
   */
  submitOne(describe: () => string): void {
    this.#check();
    const status = this.library.submit(this.handle, this.#writerAddress, 1n);
    if (status === 0) return;
    const call = describe();
    throw this.failure(status, call, { known: new RegExp(`^${call.split("(")[0]}(?: on [^:]*)?: `) });
  }

  /**
   * Runs `count` encoded commands from the start of `commands`, one after the other.
   * @internal
   */
  submit(commands: CommandWriter, count: number): void {
    this.#check();
    const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(commands.bytes)));
    const status = this.library.submit(this.handle, address, BigInt(count));
    if (status !== 0) throw this.failure(status, `submit of ${count} commands`);
  }

  /**
   * Why a command can't run here, or undefined when it can. `command` is one encoded record (`Command` of the ABI);
   * only its dtypes and shapes matter.
   */
  unsupportedReason(command: Uint8Array<ArrayBuffer>): string | undefined {
    this.#check();
    return this.library.supports(this.handle, command) === 1 ? undefined : this.lastError();
  }

  /**
   * Hands a program to native code, which copies it; the handle goes to `library.run`, `runAsync` and
   * `library.destroy`. Throws `out_of_memory` when its arena does not fit, else what the boundary refuses.
   * @internal
   */
  compile(commands: CommandWriter, count: number, arenaBytes: number, tokensMax: number): bigint {
    this.#check();
    const bytes = new Uint8Array(abi.ProgramDesc.size);
    const view = new DataView(bytes.buffer);
    const { offset } = abi.ProgramDesc;
    const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(commands.bytes)));
    view.setBigUint64(offset.commands, address, true);
    view.setBigUint64(offset.commandCount, BigInt(count), true);
    view.setBigUint64(offset.arenaBytes, BigInt(arenaBytes), true);
    view.setBigUint64(offset.tokensMax, BigInt(tokensMax), true);
    const out = new BigUint64Array(1);
    const status = this.library.compile(this.handle, bytes, out);
    if (status !== 0) throw this.failure(status, "the program did not compile");
    return out[0];
  }

  /**
   * Runs a compiled program on another thread; resolves to its status. The backend can't be disposed before that.
   * @internal
   */
  async runAsync(program: bigint, registers: bigint): Promise<number> {
    this.#check();
    this.#runs++;
    try {
      return await this.library.runAsync(this.handle, program, registers);
    } finally {
      this.#runs--;
    }
  }

  /** One line about the last call that failed in native code on this backend; says so when there was none. */
  lastError(): string {
    return readError(this.library, this.handle);
  }

  /**
   * The error for a status that is not ok, with the native text less what `what` says already (`known`).
   * @internal
   */
  failure(
    status: number,
    what: string,
    { known = "", file }: { known?: string | RegExp; file?: string } = {},
  ): MllmError {
    return new MllmError(statusCodes[status] ?? "backend", `${what}: ${this.lastError().replace(known, "")}`, { file });
  }

  /**
   * Closes the backend: its threads end, and memory of tensors that still live goes with it, so free them first. Again
   * is harmless. Throws `invalid_argument` while a program runs asynchronously.
   */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    if (this.isRunning) {
      throw new MllmError("invalid_argument", "a program is running: await it before disposing its backend");
    }
    this.#closed = true;
    for (const address of this.#blocks.drain()) this.library.free(this.handle, BigInt(address));
    this.library.close(this.handle);
  }

  /** 0 when there is none, even after the spare blocks went back. */
  #allocateNew(bytes: number): number {
    const size = BigInt(roundedBlock(bytes));
    const address = this.library.alloc(this.handle, size);
    if (address !== 0n) return Number(address);
    for (const spare of this.#blocks.drain()) this.library.free(this.handle, BigInt(spare));
    return Number(this.library.alloc(this.handle, size));
  }

  #check(): void {
    if (this.#closed) throw new MllmError("invalid_argument", `backend ${this.plugin.name} is closed`);
  }
}
