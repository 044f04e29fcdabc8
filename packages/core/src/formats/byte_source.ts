import { MllmError, systemReason } from "../errors.ts";

/** Random access to the bytes of a file or of memory. No read reaches past the end or allocates more than is there. */
export interface ByteSource extends Disposable {
  /** File name for messages. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /**
   * A copy (or view) of `length` bytes from `offset`.
   *
   * @throws MllmError `invalid_file` when the range is not inside the source, `io` when the system refuses
   */
  read(offset: number, length: number): Uint8Array;
}

const truncated = "The file is cut short or damaged: download or copy it again";

/** Throws unless [offset, offset + length) lies in [0, size). */
function checkRange(name: string, size: number, offset: number, length: number, what = "data"): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
    throw new MllmError("invalid_file", `impossible range of ${what}: ${length} bytes from ${offset}`, {
      file: name,
      offset,
      next: truncated,
    });
  }
  if (length > size - offset) {
    throw new MllmError("invalid_file", `${what} needs ${length} bytes but the file ends at byte ${size}`, {
      file: name,
      offset,
      next: truncated,
    });
  }
}

/** Bytes in memory; reads are views. */
export class MemorySource implements ByteSource {
  /** Serves `bytes`, which is not copied; `name` stands for a file name in errors. */
  constructor(readonly bytes: Uint8Array, readonly name = "memory") {}

  get size(): number {
    return this.bytes.byteLength;
  }

  read(offset: number, length: number): Uint8Array {
    checkRange(this.name, this.size, offset, length);
    return this.bytes.subarray(offset, offset + length);
  }

  /** Releases nothing: the bytes stay the caller's. */
  [Symbol.dispose](): void {}
}

/** A regular file, opened read-only; every read is a seek and reads until done. */
export class FileSource implements ByteSource {
  readonly size: number;
  #file: Deno.FsFile;

  /**
   * Opens the file at path `name`.
   *
   * @throws MllmError `not_found`, `io`, or `invalid_file` for what is not a regular file
   */
  constructor(readonly name: string) {
    // Looked at before opening: opening a pipe would wait for its writer.
    const stat = statFile(name);
    if (!stat.isFile) {
      throw new MllmError("invalid_file", stat.isDirectory ? "a directory, not a file" : "not a regular file", {
        file: name,
        next: "Give the path of a file",
      });
    }
    this.#file = wrapIo(name, "open", () => Deno.openSync(name, { read: true }));
    this.size = stat.size;
  }

  read(offset: number, length: number): Uint8Array {
    checkRange(this.name, this.size, offset, length);
    const bytes = new Uint8Array(length);
    return wrapIo(this.name, "read", () => {
      this.#file.seekSync(offset, Deno.SeekMode.Start);
      let done = 0;
      while (done < length) {
        const got = this.#file.readSync(bytes.subarray(done));
        if (got === null || got === 0) {
          throw new MllmError("invalid_file", `the file became shorter than ${this.size} bytes while it was read`, {
            file: this.name,
            offset: offset + done,
            next: "Wait until the download or copy is complete",
          });
        }
        done += got;
      }
      return bytes;
    });
  }

  /** Closes the file; a read after it fails. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * Runs `action` and turns what the operating system throws into an MllmError that names the file: `not_found` or `io`
 * ("can't `verb` the file").
 */
export function wrapIo<T>(file: string, verb: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof MllmError) throw error;
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      const what = verb === "write" ? "no such folder" : "no such file";
      throw new MllmError("not_found", what, { file, next: "Check the path", cause: error });
    }
    const right = verb === "write" ? "write" : "read";
    throw new MllmError("io", `can't ${verb} the file: ${systemReason(error)}`, {
      file,
      next: `Check that this user may ${right} it (and Deno's --allow-${right})`,
      cause: error,
    });
  }
}

/** Size and kind of what lies at `path`, links followed. Throws `not_found` or `io`. */
export function statFile(path: string): Deno.FileInfo {
  return wrapIo(path, "read", () => Deno.statSync(path));
}

/** Whether something exists at `path`. Throws `io` when the system does not let us look. */
export function fileExists(path: string): boolean {
  try {
    statFile(path);
    return true;
  } catch (error) {
    if (error instanceof MllmError && error.code === "not_found") return false;
    throw error;
  }
}

/**
 * Reads a whole file of at most `limit` bytes.
 *
 * @throws MllmError `invalid_file` when it is larger
 */
export function readWholeFile(path: string, limit: number): Uint8Array {
  using source = new FileSource(path);
  if (source.size > limit) {
    throw new MllmError("invalid_file", `${source.size} bytes, more than the ${limit} allowed for such a file`, {
      file: path,
      next: "This can't be the file that its name says",
    });
  }
  return source.read(0, source.size);
}
