import { type DType, dtypes } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { type ByteSource, fileExists, FileSource, MemorySource } from "./byte_source.ts";
import { GgufCursor } from "./gguf_cursor.ts";
import { describeContent } from "./safetensors.ts";
import type { TextList } from "./text_list.ts";
import { checkedByteLength, quoted, type WeightInfo } from "./weight_info.ts";

/** A metadata array: texts, typed numbers, booleans, or arrays. */
export type GgufArray =
  | TextList
  | boolean[]
  | GgufArray[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | BigUint64Array
  | BigInt64Array
  | Float64Array;

/** A metadata value. 64-bit integers are numbers where that is exact, else bigints. */
export type GgufValue = number | bigint | boolean | string | GgufArray;

/** What a GGUF file (or all files of a split model) holds. */
export interface GgufFile {
  /** The (first) file. */
  path: string;
  /** All files, in order. */
  files: string[];
  /** Version of the format: 2 or 3. */
  version: number;
  /** Metadata of the first file, by key. */
  metadata: Map<string, GgufValue>;
  /** By name, in file order; shapes in PyTorch order. */
  tensors: Map<string, WeightInfo>;
}

const tensorsMax = 1_000_000;
const pairsMax = 1_000_000;
const again = "The file is damaged or incomplete: download it again";
const models = "A model is a folder with config.json and safetensors, or a .gguf file";

/** Types of GGML that have an id but that this engine can't run. */
const otherTypes: Record<number, string> = {
  4: "Q4_2",
  5: "Q4_3",
  9: "Q8_1",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  21: "IQ3_S",
  22: "IQ2_S",
  29: "IQ1_M",
  31: "Q4_0_4_4",
  32: "Q4_0_4_8",
  33: "Q4_0_8_8",
  36: "IQ4_NL_4_4",
  37: "IQ4_NL_4_8",
  38: "IQ4_NL_8_8",
  40: "NVFP4",
};
const ggmlTypes = new Map<number, DType>(
  (Object.keys(dtypes) as DType[]).filter((name) => dtypes[name].id < 64).map((name) => [dtypes[name].id, name]),
);

/**
 * Reads metadata and tensor table of a GGUF file, version 2 or 3; of a split model (`x-00001-of-00003.gguf`), of all
 * its files, whichever is named. No tensor data is read. Format:
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * @throws MllmError `not_found`, `io`, `unsupported` (version, byte order, tensor type), or `invalid_file` naming file
 * and byte offset
 */
// deno-lint-ignore require-await
export async function openGguf(path: string): Promise<GgufFile> {
  const split = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/s.exec(path);
  const firstPath = split && Number(split[2]) > 1 ? `${split[1]}-00001-of-${split[3]}.gguf` : path;
  if (firstPath !== path && !fileExists(firstPath)) missingPart(firstPath, path);
  const first = openOne(firstPath);
  const count = splitNumber(first, "split.count") ?? 1;
  if (count <= 1) return first;
  if (!split || Number(split[3]) !== count) {
    throw new MllmError("invalid_file", `the file says it is one of ${count} parts, but is not named so`, {
      file: firstPath,
      next: `Name the parts name-00001-of-${String(count).padStart(5, "0")}.gguf and so on`,
    });
  }
  checkPart(first, 0, count);
  for (let part = 1; part < count; part++) {
    const partPath = `${split[1]}-${String(part + 1).padStart(5, "0")}-of-${split[3]}.gguf`;
    if (!fileExists(partPath)) missingPart(partPath, firstPath);
    const next = openOne(partPath);
    checkPart(next, part, count);
    first.files.push(partPath);
    for (const [name, tensor] of next.tensors) {
      if (first.tensors.has(name)) fail(`tensor ${quoted(name)} is also in an earlier part`, partPath, 0);
      first.tensors.set(name, tensor);
    }
  }
  const expected = splitNumber(first, "split.tensors.count");
  if (expected !== undefined && expected !== first.tensors.size) {
    fail(`the parts hold ${first.tensors.size} tensors together, not ${expected}`, firstPath, 0);
  }
  return first;
}

/**
 * As `openGguf`, of one file's bytes in memory. `name` stands for the file in errors and in `WeightInfo.file`; a part
 * of a split model is read as it is.
 */
export function readGguf(bytes: Uint8Array, name = "memory"): GgufFile {
  return parseGguf(new MemorySource(bytes, name));
}

function fail(what: string, file: string, offset: number, next = again): never {
  throw new MllmError("invalid_file", what, { file, offset, next });
}

function missingPart(part: string, other: string): never {
  throw new MllmError("not_found", `a part of the split model ${quoted(other)} is missing`, {
    file: part,
    next: "Download all parts into one folder",
  });
}

function openOne(path: string): GgufFile {
  using source = new FileSource(path);
  return parseGguf(source);
}

function splitNumber(file: GgufFile, key: string): number | undefined {
  const value = file.metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    fail(`${key} is not a count`, file.path, 0);
  }
  return value;
}

function checkPart(file: GgufFile, part: number, count: number): void {
  const no = splitNumber(file, "split.no");
  if (no !== part || splitNumber(file, "split.count") !== count) {
    fail(`split.no and split.count do not say that this is part ${part + 1} of ${count}`, file.path, 0);
  }
}

/** "GGUF" */
const magic = 0x46554747;

function parseGguf(source: ByteSource): GgufFile {
  const file = source.name;
  const cursor = new GgufCursor(source);
  if (source.size < 24) {
    const other = source.size >= 4 && cursor.u32() === magic ? undefined : describeContent(source);
    fail(`${source.size} bytes are too few for a GGUF file`, file, 0, other ?? again);
  }
  if (cursor.u32() !== magic) {
    fail("not a GGUF file: it does not start with GGUF", file, 0, describeContent(source) ?? models);
  }
  const version = cursor.u32();
  if (version !== 2 && version !== 3) unsupportedVersion(version, file);
  const tensorCount = cursor.count("tensors", 24, tensorsMax);
  const pairCount = cursor.count("metadata pairs", 13, pairsMax);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < pairCount; i++) {
    const at = cursor.at;
    const key = cursor.name("metadata key");
    if (metadata.has(key)) fail(`the metadata key ${quoted(key)} appears twice`, file, at);
    metadata.set(key, cursor.value(key));
  }
  const alignment = readAlignment(metadata, file);
  const tensors = new Map<string, WeightInfo>();
  for (let i = 0; i < tensorCount; i++) {
    const at = cursor.at;
    const tensor = readTensor(cursor, file, alignment);
    if (tensors.has(tensor.name)) fail(`the tensor ${quoted(tensor.name)} appears twice`, file, at);
    tensors.set(tensor.name, tensor);
  }
  placeTensors([...tensors.values()], Math.ceil(cursor.at / alignment) * alignment, file, source.size);
  return { path: file, files: [file], version, metadata, tensors };
}

function unsupportedVersion(version: number, file: string): never {
  const swapped = (version & 0xffff) === 0 && version !== 0;
  const what = swapped ? "a big-endian GGUF file" : `GGUF version ${version}`;
  throw new MllmError("unsupported", `${what}; this engine reads little-endian versions 2 and 3`, {
    file,
    offset: 4,
    next: "Convert the model again with a current llama.cpp",
  });
}

function readAlignment(metadata: Map<string, GgufValue>, file: string): number {
  const alignment = metadata.get("general.alignment") ?? 32;
  if (
    typeof alignment !== "number" || !(alignment >= 1 && alignment <= 2 ** 30) ||
    !Number.isInteger(Math.log2(alignment))
  ) {
    return fail(`general.alignment ${quoted(String(alignment))} is not a power of two`, file, 0);
  }
  return alignment;
}

/** One row of the tensor table; `offset` is still relative to the data section. */
function readTensor(cursor: GgufCursor, file: string, alignment: number): WeightInfo {
  const at = cursor.at;
  const name = cursor.name("tensor name");
  const rank = cursor.u32();
  if (rank > 4) fail(`tensor ${quoted(name)} has ${rank} dims; GGML has at most 4`, file, at);
  const shape: number[] = [];
  for (let i = 0; i < rank; i++) {
    const dim = cursor.u64();
    if (dim < 1 || dim > 2 ** 53 - 1) fail(`tensor ${quoted(name)} has the impossible dim ${dim}`, file, at);
    shape.unshift(dim);
  }
  const typeAt = cursor.at;
  const type = cursor.u32();
  const dtype = ggmlTypes.get(type);
  if (dtype === undefined) {
    const known = otherTypes[type];
    if (known === undefined) return fail(`tensor ${quoted(name)} has the unknown type ${type}`, file, typeAt);
    throw new MllmError("unsupported", `tensor ${quoted(name)} has type ${known}, which this engine can't run`, {
      file,
      offset: typeAt,
      next: "Use a file with Q8_0, Q6_K, Q5_K, Q4_K, IQ4_XS or another supported type",
    });
  }
  const bytes = checkedByteLength(dtype, shape, name, file, at);
  const offsetAt = cursor.at;
  const offset = cursor.u64();
  if (offset % alignment !== 0) {
    fail(
      `the offset ${offset} of tensor ${quoted(name)} is not a multiple of the alignment ${alignment}`,
      file,
      offsetAt,
    );
  }
  return { name, dtype, shape, file, offset, bytes };
}

/** Makes offsets absolute; checks that the data lies in the file and that no two tensors share bytes. */
function placeTensors(tensors: WeightInfo[], dataStart: number, file: string, size: number): void {
  for (const tensor of tensors) {
    const { name, offset, bytes } = tensor;
    if (offset > size - dataStart || bytes > size - dataStart - offset) {
      fail(
        `tensor ${quoted(name)} (${bytes} bytes from ${dataStart + offset}) ends after the file, ${size}`,
        file,
        dataStart,
      );
    }
    tensor.offset += dataStart;
  }
  tensors.sort((a, b) => a.offset - b.offset);
  for (let i = 1; i < tensors.length; i++) {
    const before = tensors[i - 1];
    if (before.offset + before.bytes > tensors[i].offset) {
      fail(`tensors ${quoted(before.name)} and ${quoted(tensors[i].name)} share bytes`, file, tensors[i].offset);
    }
  }
}
