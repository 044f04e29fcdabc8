import type { DType } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { type ByteSource, fileExists, FileSource, MemorySource } from "./byte_source.ts";
import { type Json, parseJson, readJsonObject } from "./json.ts";
import { checkedByteLength, quoted, type WeightInfo } from "./weight_info.ts";

/** What a safetensors file (or a set of shards) holds. */
export interface SafetensorsFile {
  /** The file or index that was opened. */
  path: string;
  /** Files that hold tensors, sorted. */
  files: string[];
  /** `__metadata__` of the file (of all shards together; the first wins). */
  metadata: Map<string, string>;
  /** Where each tensor lies, by its name in the file. */
  tensors: Map<string, WeightInfo>;
}

/** Limit of the format's reference implementation. */
const headerBytesMax = 100_000_000;
const indexBytesMax = 100_000_000;
const shardsMax = 10_000;
const again = "The file is damaged or incomplete: download it again";

const dtypeNames: Record<string, DType> = {
  F64: "f64",
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  I64: "i64",
  I32: "i32",
  I16: "i16",
  I8: "i8",
  U8: "u8",
  BOOL: "u8",
};
const unsupportedNames = /^(F8_E4M3|F8_E5M2|F8_E8M0|F8_E4M3FNUZ|F8_E5M2FNUZ|F4|F6_E2M3|F6_E3M2|U16|U32|U64|C64)$/;

/**
 * Reads the header of `x.safetensors`, or of every shard that `x.safetensors.index.json` names. No tensor data is read.
 * Format: https://github.com/huggingface/safetensors#format
 *
 * @throws MllmError `not_found`, `io`, `unsupported` (dtype), or `invalid_file` naming file and byte offset
 */
// deno-lint-ignore require-await
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  if (path.endsWith(".json")) return openIndex(path);
  using source = new FileSource(path);
  const { metadata, tensors } = parseSafetensors(source);
  return { path, files: [path], metadata, tensors };
}

/**
 * As `openSafetensors`, of one file's bytes in memory; `name` stands for the file in errors and in `WeightInfo.file`.
 */
export function readSafetensors(bytes: Uint8Array, name = "memory"): SafetensorsFile {
  return { path: name, files: [name], ...parseSafetensors(new MemorySource(bytes, name)) };
}

function invalid(what: string, file: string, offset: number, next = again): never {
  throw new MllmError("invalid_file", what, { file, offset, next });
}

function parseSafetensors(source: ByteSource): Pick<SafetensorsFile, "metadata" | "tensors"> {
  const { name: file, size } = source;
  if (size < 8) {
    invalid(`${size} bytes are too few for a safetensors file, which starts with the length of its header`, file, 0);
  }
  const head = source.read(0, 8);
  const view = new DataView(head.buffer, head.byteOffset, 8);
  const headerBytes = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (headerBytes > headerBytesMax || headerBytes > size - 8 || headerBytes < 2) {
    invalid(
      `not a safetensors file: a header of ${headerBytes} bytes in a file of ${size}`,
      file,
      0,
      describeContent(source) ?? again,
    );
  }
  const header = source.read(8, headerBytes);
  if (header[0] !== 0x7b) invalid("not a safetensors file: the header does not start with '{'", file, 8);
  const json = parseJson(header, file, { depthMax: 4, valuesMax: 20_000_000, uniqueKeys: true, baseOffset: 8 });
  const metadata = new Map<string, string>();
  const tensors = new Map<string, WeightInfo>();
  const dataStart = 8 + headerBytes;
  for (const [name, entry] of Object.entries(json as Record<string, Json>)) {
    if (name === "__metadata__") readMetadata(entry, metadata, file);
    else tensors.set(name, readEntry(name, entry, file, dataStart, size));
  }
  checkLayout([...tensors.values()], file, dataStart, size);
  return { metadata, tensors };
}

function readMetadata(entry: Json, metadata: Map<string, string>, file: string): void {
  if (entry === null || typeof entry !== "object" || Array.isArray(entry)) {
    invalid("__metadata__ is not an object of strings", file, 8);
  }
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== "string") invalid(`__metadata__ ${quoted(key)} is not a string`, file, 8);
    metadata.set(key, value);
  }
}

function readEntry(name: string, entry: Json, file: string, dataStart: number, size: number): WeightInfo {
  const bad = (what: string): never => invalid(`tensor ${quoted(name)}: ${what}`, file, 8);
  if (entry === null || typeof entry !== "object" || Array.isArray(entry)) return bad("its entry is not an object");
  const { dtype: dtypeName, shape, data_offsets: range, ...rest } = entry;
  if (Object.keys(rest).length > 0) return bad(`unknown field ${quoted(Object.keys(rest)[0])} in its entry`);
  if (typeof dtypeName !== "string") return bad("its dtype is not a string");
  const dtype = Object.hasOwn(dtypeNames, dtypeName) ? dtypeNames[dtypeName] : undefined;
  if (dtype === undefined) {
    if (!unsupportedNames.test(dtypeName)) return bad(`unknown dtype ${quoted(dtypeName)}`);
    throw new MllmError("unsupported", `tensor ${quoted(name)} has dtype ${dtypeName}, which this engine can't run`, {
      file,
      offset: 8,
      next: "Use a BF16, F16 or F32 checkpoint, or a GGUF file",
    });
  }
  if (!isNumbers(shape)) return bad("its shape is not an array of numbers");
  if (!isNumbers(range) || range.length !== 2) return bad("its data_offsets are not two numbers");
  const [start, end] = range;
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start) {
    return bad(`its data_offsets [${range}] are no range`);
  }
  const bytes = checkedByteLength(dtype, shape, name, file, 8);
  if (bytes !== end - start) {
    return bad(`[${shape}] of ${dtypeName} needs ${bytes} bytes, data_offsets give ${end - start}`);
  }
  const offset = dataStart + start;
  if (end > size - dataStart) {
    invalid(`tensor ${quoted(name)} ends at byte ${offset + bytes}, the file at ${size}`, file, offset);
  }
  return { name, dtype, shape, file, offset, bytes };
}

function isNumbers(value: Json): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === "number");
}

/** The format wants the data without gaps and overlaps, and the file to end where it ends. */
function checkLayout(tensors: WeightInfo[], file: string, dataStart: number, size: number): void {
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let at = dataStart;
  for (const { name, offset, bytes } of tensors) {
    if (offset !== at) {
      invalid(
        `tensor ${quoted(name)} ${offset < at ? "overlaps the one before it" : "leaves a gap before it"}`,
        file,
        offset,
      );
    }
    at += bytes;
  }
  if (at !== size) invalid(`${size - at} bytes after the last tensor belong to none`, file, at);
}

async function openIndex(path: string): Promise<SafetensorsFile> {
  const index = readJsonObject(path, indexBytesMax, { depthMax: 16, uniqueKeys: true });
  const weightMap = index.weight_map;
  if (weightMap === null || typeof weightMap !== "object" || Array.isArray(weightMap)) {
    return invalid("the index has no object weight_map", path, 0);
  }
  const directory = path.slice(0, path.search(/[^/\\]*$/));
  const byFile = new Map<string, string[]>();
  for (const [name, file] of Object.entries(weightMap)) {
    // A shard lies beside its index: nothing from outside may point elsewhere.
    if (typeof file !== "string" || !/^[^/\\\0]+\.safetensors$/.test(file)) {
      invalid(
        `weight_map: ${quoted(name)} is in ${quoted(JSON.stringify(file))}, which is no file name of a shard`,
        path,
        0,
      );
    }
    const names = byFile.get(file);
    if (names) names.push(name);
    else byFile.set(file, [name]);
  }
  if (byFile.size > shardsMax) invalid(`weight_map names ${byFile.size} files`, path, 0);
  const result: SafetensorsFile = { path, files: [], metadata: new Map(), tensors: new Map() };
  for (const [file, names] of [...byFile].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const shardPath = directory + file;
    if (!fileExists(shardPath)) {
      throw new MllmError("not_found", `the shard ${quoted(file)} that ${quoted(path)} names is missing`, {
        file: shardPath,
        next: "Download the whole model folder",
      });
    }
    const shard = await openSafetensors(shardPath);
    result.files.push(shardPath);
    for (const [key, value] of shard.metadata) if (!result.metadata.has(key)) result.metadata.set(key, value);
    for (const name of names) {
      const tensor = shard.tensors.get(name);
      if (!tensor) invalid(`tensor ${quoted(name)}, listed in the index, is not in this shard`, shardPath, 8);
      result.tensors.set(name, tensor);
    }
  }
  return result;
}

/** What the first bytes look like when they are no model, as the next step of a message. */
export function describeContent(source: ByteSource): string | undefined {
  const bytes = source.read(0, Math.min(64, source.size));
  // Not TextDecoder: its "latin1" is windows-1252.
  const text = String.fromCharCode(...bytes);
  if (text.startsWith("version https://git-lfs")) {
    return "This is a Git LFS pointer, not the file itself: run `git lfs pull` in the folder, or download the file";
  }
  if (/^\s*<(!doctype|html|\?xml)/i.test(text)) {
    return "This is a web page, not a model: the download was answered with an error or login page";
  }
  if (text.startsWith("PK\x03\x04")) {
    return "This is a zip archive (PyTorch's .bin or .pt, or a packed folder): get the safetensors or GGUF form of the model";
  }
  if (text.startsWith("\x80\x02") || text.startsWith("\x80\x04")) {
    return "This is a Python pickle, which can run code: get the safetensors or GGUF form of the model";
  }
  if (text.startsWith("%PDF")) return "This is a PDF document: give a model folder or a .gguf file";
  if (text.startsWith("GGUF")) return "This is a GGUF file: name it .gguf";
  if (/^(ggml|lmgg|fmgg|tjgg)/.test(text)) {
    return "This is a GGML file from before GGUF: get the GGUF form of the model";
  }
  if (text.startsWith("\x1f\x8b")) return "This is a gzip archive: unpack it first";
  if (text.startsWith("{")) return "This is JSON, not tensor data: give the model folder that holds it";
  return undefined;
}
