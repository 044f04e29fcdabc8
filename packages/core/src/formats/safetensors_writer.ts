import { type DType, dtypes } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { wrapIo } from "./byte_source.ts";

/** A tensor to be written. */
export interface TensorData {
  /** Name in the file, unique there; not `__metadata__`. */
  name: string;
  /** Element type, none of the block types. */
  dtype: DType;
  /** PyTorch order: slowest dim first. */
  shape: readonly number[];
  /** Little-endian bytes, contiguous. */
  data: ArrayBufferView;
}

const names: Partial<Record<DType, string>> = {
  f64: "F64",
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
  i64: "I64",
  i32: "I32",
  i16: "I16",
  i8: "I8",
  u8: "U8",
};

const bytesOf = (data: ArrayBufferView): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * The header of a safetensors file that holds `tensors` in this order: length, JSON, padding to 8 bytes.
 *
 * @throws MllmError `invalid_argument` for duplicate names, `unsupported` for block types
 */
function encodeHeader(tensors: readonly TensorData[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const header: Record<string, unknown> = Object.create(null);
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  let at = 0;
  for (const { name, dtype, shape, data } of tensors) {
    const dtypeName = names[dtype];
    if (dtypeName === undefined) {
      throw new MllmError("unsupported", `safetensors has no name for ${dtype} (tensor ${name})`);
    }
    if (name in header || name === "__metadata__") {
      throw new MllmError("invalid_argument", `the tensor name ${JSON.stringify(name)} can't be used (again)`);
    }
    const bytes = shape.reduce((product, dim) => product * dim, dtypes[dtype].blockBytes);
    if (bytes !== data.byteLength) {
      throw new MllmError(
        "invalid_argument",
        `tensor ${name}: [${shape}] of ${dtype} is ${bytes} bytes, not ${data.byteLength}`,
      );
    }
    header[name] = { dtype: dtypeName, shape, data_offsets: [at, at + bytes] };
    at += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(json.length / 8) * 8;
  const out = new Uint8Array(8 + length).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(json, 8);
  return out;
}

/** The bytes of a safetensors file. Throws as `writeSafetensors`, but for `io`. */
export function encodeSafetensors(
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const header = encodeHeader(tensors, metadata);
  const out = new Uint8Array(tensors.reduce((sum, { data }) => sum + data.byteLength, header.length));
  out.set(header);
  let at = header.length;
  for (const { data } of tensors) {
    out.set(bytesOf(data), at);
    at += data.byteLength;
  }
  return out;
}

/**
 * Writes a safetensors file, tensors in the given order; `metadata` becomes its `__metadata__`.
 *
 * @throws MllmError `invalid_argument` (names, sizes), `unsupported` (dtype) or `io`
 */
// deno-lint-ignore require-await
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const header = encodeHeader(tensors, metadata);
  wrapIo(path, "write", () => {
    using file = Deno.openSync(path, { write: true, create: true, truncate: true });
    writeAll(file, header);
    for (const { data } of tensors) writeAll(file, bytesOf(data));
  });
}

/** Writes all of `bytes`; a single write may stop early. */
export function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}
