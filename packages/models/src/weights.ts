import {
  type Backend,
  copy,
  type DType,
  dtypes,
  Embedding,
  emptyPacked,
  EventLoopTurns,
  Linear,
  type MappedFile,
  MllmError,
  packWeight,
  readWeight,
  RmsNorm,
  type RopeFrequencies,
  RotaryEmbedding,
  statFile,
  Tensor,
  type WeightInfo,
} from "@mllm/core";

/** Bytes by which the address of a tensor must divide; blocks may lie anywhere. */
function alignmentOf(dtype: DType): number {
  const { quantized, blockBytes } = dtypes[dtype];
  return quantized ? 1 : blockBytes;
}

/** So much of a file is mapped at a time, where weights lie side by side: a mapping costs as much as packing 200 KiB. */
const WINDOW_BYTES = 16 * 2 ** 20;

/** Packing gives the event loop a turn after so long. */
const TURN_MS = 50;

/** Types of tables of numbers, which are no weights. */
const integers: ReadonlySet<DType> = new Set(["i8", "i16", "i32", "i64", "u8"]);

/** Called while weights load, with the bytes done and their sum: of those that the model uses. */
export type LoadProgress = (doneBytes: number, totalBytes: number) => void;

/** A weight that was asked for and is not loaded yet: a packed matrix or a vector in f32. */
interface Pending {
  readonly info: WeightInfo;
  readonly target: Tensor;
}

/** Weights of one part of a file, which is mapped while they are loaded. */
interface Window<P extends HasInfo> extends FileRange {
  readonly weights: P[];
}

type HasInfo = { readonly info: FileRange };
type FileRange = Pick<WeightInfo, "file" | "offset" | "bytes">;

/** What the file of a model gives to a loader. */
export interface WeightSource {
  /** File or folder, named in errors. */
  readonly path: string;
  /** Where each tensor lies, by Hugging Face name. */
  readonly weights: ReadonlyMap<string, WeightInfo>;
}

/**
 * Brings weights from mapped files onto a backend, by their Hugging Face names and checked against the shape that the
 * modeling code expects. Matrices are packed; small vectors become f32. Owns everything it makes. Modules get their
 * weights when they ask for them; `load` takes the memory of matrices, and fills all.
 *
 * While it fills them, only one weight, or 16 MiB of smaller ones, is in memory twice, in the file and packed; the large
 * ones (the head) come first, when there is little beside them.
 *
 * Every method that takes a name throws MllmError: `invalid_file` when the weight is missing, has another shape or
 * holds integers, `unsupported` when the backend can't pack its type, `out_of_memory`; an embedding that is not tied
 * also `io`, and `invalid_file` for a file that became shorter, as it is read where it lies.
 */
export class WeightLoader implements Disposable {
  readonly #owned: Disposable[] = [];
  readonly #packed = new Map<string, Tensor>();
  readonly #pending: Pending[] = [];
  /** Bytes of what was brought over, and of what was asked for. */
  #doneBytes = 0;
  #totalBytes = 0;

  /** Nothing is read before a module asks for its weights. */
  constructor(
    /** Where the weights go. */
    readonly backend: Backend,
    /** Where they come from. */
    readonly source: WeightSource,
    /** Told after each weight, when all were asked for. */
    readonly onProgress: LoadProgress = () => {},
  ) {}

  /** A linear layer [outFeatures, inFeatures] from `name.weight` and, with `bias`, `name.bias`. */
  linear(name: string, outFeatures: number, inFeatures: number, options: { bias?: boolean } = {}): Linear {
    const weight = this.#pack(`${name}.weight`, [outFeatures, inFeatures]);
    return new Linear(weight, options.bias ? this.#vector(`${name}.bias`, outFeatures) : undefined);
  }

  /** An RMSNorm over `size` elements from `name.weight`. */
  rmsNorm(name: string, size: number, eps: number): RmsNorm {
    return new RmsNorm(this.#vector(`${name}.weight`, size), eps);
  }

  /**
   * A table [count, size] from `name.weight`. A tied one is packed, and shared with the head by `tiedHead`; any other
   * is read where it lies in the file, row by row.
   */
  embedding(name: string, count: number, size: number, tied: boolean): Embedding {
    const full = `${name}.weight`;
    if (tied) return new Embedding(this.#pack(full, [count, size]));
    const info = this.#ask(full, [count, size]);
    this.#doneBytes += info.bytes;
    return new Embedding(this.#own(this.#mapped(info)));
  }

  /** The language-model head that shares the packed table of `embedding(name, …, tied = true)`. */
  tiedHead(name: string): Linear {
    const table = this.#packed.get(`${name}.weight`);
    if (!table) throw new MllmError("internal", `${name} was not loaded as a tied embedding`);
    return new Linear(table);
  }

  /** The rotary embedding, whose frequencies are computed, not loaded. */
  rotaryEmbedding(frequencies: RopeFrequencies): RotaryEmbedding {
    return this.#own(new RotaryEmbedding(this.backend, frequencies));
  }

  /**
   * Fills the weights that were asked for; the event loop gets a turn now and then.
   * @throws {MllmError} `invalid_file` for a file that became shorter, `io`, `out_of_memory`.
   */
  async load(): Promise<void> {
    const turns = new EventLoopTurns(TURN_MS);
    for (const window of windowsOf(this.#pending.splice(0))) {
      using mapped = this.#map(window);
      for (const weight of window.weights) {
        this.#fill(weight, mapped, window.offset);
        await turns.give();
      }
    }
  }

  /** Releases all weights. */
  [Symbol.dispose](): void {
    for (const resource of this.#owned.splice(0)) resource[Symbol.dispose]();
    this.#packed.clear();
  }

  #own<T extends Disposable>(resource: T): T {
    this.#owned.push(resource);
    return resource;
  }

  /** Where a weight lies, which is checked here and counts as asked for. */
  #ask(name: string, shape: readonly number[]): WeightInfo {
    const info = this.source.weights.get(name);
    if (!info) {
      throw new MllmError("invalid_file", `the weight ${name} [${shape}] is missing`, {
        file: this.source.path,
        next: "Check that the file is complete and belongs to this config",
      });
    }
    if (info.shape.length !== shape.length || info.shape.some((dim, i) => dim !== shape[i])) {
      throw new MllmError(
        "invalid_file",
        `the weight ${name} has shape [${info.shape}], the config asks for [${shape}]`,
        {
          file: info.file,
          offset: info.offset,
          next: "Check that weights and config belong to the same model",
        },
      );
    }
    if (integers.has(info.dtype)) {
      throw new MllmError("invalid_file", `the weight ${name} holds integers (${info.dtype})`, {
        file: info.file,
        offset: info.offset,
        next: "Use a file with weights as floats or in GGUF's block types",
      });
    }
    this.#totalBytes += info.bytes;
    return info;
  }

  /** A tensor over its part of a mapped file, which stays mapped as long as the tensor lives. */
  #view(info: WeightInfo, mapped: MappedFile, start: number): Tensor {
    const { name, offset, dtype, shape } = info;
    if (offset % alignmentOf(dtype) !== 0) return this.#aligned(info).named(name);
    return Tensor.fromAddress(this.backend, mapped.address + BigInt(offset - start), dtype, shape, mapped, { name });
  }

  #mapped(info: WeightInfo): Tensor {
    using file = this.#map(info);
    return this.#view(info, file, info.offset);
  }

  /** Maps what lay inside the file when that was opened. */
  #map({ file, offset, bytes }: FileRange): MappedFile {
    try {
      return this.backend.mapFile(file, { offset, bytes });
    } catch (error) {
      const { size } = statFile(file);
      if (offset + bytes <= size) throw error;
      throw new MllmError("invalid_file", `the file became shorter while it was read: ${size} bytes`, {
        file,
        offset,
        next: "Wait for its download to end, then load it again",
        cause: error,
      });
    }
  }

  /** A copy for weights that lie in the file at an odd place, where kernels can't read them. */
  #aligned(info: WeightInfo): Tensor {
    const bytes = readWeight(info).slice();
    const values = info.dtype === "f32" ? new Float32Array(bytes.buffer) : bytes;
    return Tensor.from(this.backend, values, info.shape, info.dtype);
  }

  #pack(name: string, shape: readonly [number, number]): Tensor {
    const info = this.#ask(name, shape);
    const packed = this.#own(emptyPacked(this.backend, info.dtype, shape).named(name));
    this.#packed.set(name, packed);
    this.#pending.push({ info, target: packed });
    return packed;
  }

  #fill({ info, target }: Pending, mapped: MappedFile, start: number): void {
    using source = this.#view(info, mapped, start);
    if (info.shape.length === 1) copy(source, { out: target });
    else packWeight(source, { out: target });
    this.#doneBytes += info.bytes;
    this.onProgress(this.#doneBytes, this.#totalBytes);
  }

  #vector(name: string, size: number): Tensor {
    const info = this.#ask(name, [size]);
    const target = this.#own(Tensor.empty(this.backend, [size], "f32").named(name));
    this.#pending.push({ info, target });
    return target;
  }
}

/** Parts of files to map one after the other: large matrices alone and first, the others side by side. */
export function windowsOf<P extends HasInfo>(pending: readonly P[]): Window<P>[] {
  const isLarge = ({ info }: P) => info.bytes > WINDOW_BYTES;
  const windows = pending.filter(isLarge).map(windowOf);
  const others = pending.filter((one) => !isLarge(one));
  others.sort((a, b) => a.info.file < b.info.file ? -1 : a.info.file > b.info.file ? 1 : a.info.offset - b.info.offset);
  let last: Window<P> | undefined;
  for (const one of others) {
    const { file, offset, bytes } = one.info;
    if (last?.file === file && offset + bytes - last.offset <= WINDOW_BYTES) {
      last.bytes = Math.max(last.bytes, offset + bytes - last.offset);
      last.weights.push(one);
    } else windows.push(last = windowOf(one));
  }
  return windows;
}

function windowOf<P extends HasInfo>(one: P): Window<P> {
  const { file, offset, bytes } = one.info;
  return { file, offset, bytes, weights: [one] };
}
