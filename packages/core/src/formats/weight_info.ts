import { type DType, dtypes } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { FileSource } from "./byte_source.ts";

/** Where a tensor lies in a file. Its bytes were checked to be inside the file, and to be what dtype and shape need. */
export interface WeightInfo {
  /** Name in the file; checkpoints map those of GGUF to Hugging Face's. */
  name: string;
  /** How the elements are stored in the file. */
  dtype: DType;
  /** PyTorch order: slowest dim first. */
  shape: number[];
  /** Path of the file that holds the data. */
  file: string;
  /** Byte offset of the data from the start of the file. */
  offset: number;
  /** Bytes of data. */
  bytes: number;
}

/** Most dims that a tensor in a file may have. */
const rankMax = 8;

/**
 * Bytes of a tensor from an untrusted file, without overflow.
 *
 * @throws MllmError `invalid_file` for dims that are no sizes, rows that are not whole blocks, or too many elements
 */
export function checkedByteLength(
  dtype: DType,
  shape: readonly number[],
  name: string,
  file: string,
  at: number,
): number {
  const bad = (what: string): never => {
    throw new MllmError("invalid_file", `tensor ${quoted(name)}: ${what}`, {
      file,
      offset: at,
      next: "The file is damaged or was written wrongly: download or convert it again",
    });
  };
  if (shape.length > rankMax) bad(`${shape.length} dims, more than ${rankMax}`);
  let elements = 1;
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || dim < 0) bad(`the dim ${dim} is not a size`);
    elements *= dim;
    // Tested in every step: a later dim of 0 must not hide an overflow.
    if (!Number.isSafeInteger(elements)) bad(`shape [${shape}] has more elements than any file`);
  }
  const { blockElements, blockBytes } = dtypes[dtype];
  const row = shape.length === 0 ? 1 : shape[shape.length - 1];
  if (row % blockElements !== 0) bad(`rows of ${row} elements do not divide into ${dtype} blocks of ${blockElements}`);
  const bytes = (elements / blockElements) * blockBytes;
  if (!Number.isSafeInteger(bytes)) bad(`shape [${shape}] of ${dtype} is larger than any file`);
  return bytes;
}

/** A name from a file for a message: quoted, control characters escaped, at most 100 characters. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);
}

/**
 * Reads a tensor's bytes as stored (a copy). For tools, tests and data at odd offsets; the engine maps files otherwise.
 *
 * @throws MllmError `not_found`, `io`, or `invalid_file` when the file has become shorter
 */
export function readWeight(info: WeightInfo): Uint8Array {
  using source = new FileSource(info.file);
  return source.read(info.offset, info.bytes);
}
