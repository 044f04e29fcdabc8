import { type DType, dtypes } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { wrapIo } from "./byte_source.ts";
import type { GgufArray } from "./gguf.ts";
import { type GgufType, ggufTypes } from "./gguf_cursor.ts";
import { writeAll } from "./safetensors_writer.ts";
import { checkedByteLength } from "./weight_info.ts";

/** A metadata value to be written: what JavaScript tells apart as it is, other numbers with their type. */
export type GgufInput = string | boolean | GgufArray | readonly string[] | { type: GgufType; value: number | bigint };

/** A tensor to be written, its data at once or in pieces. */
export interface GgufTensorData {
  /** Name in the file, unique there. */
  name: string;
  /** Element type, one with a GGML id. */
  dtype: DType;
  /** PyTorch order: slowest dim first. */
  shape: readonly number[];
  /** Little-endian bytes, contiguous; or a function that gives them in pieces. */
  data: ArrayBufferView | (() => Iterable<ArrayBufferView>);
}

/** Content of a GGUF file to be written. */
export interface GgufContent {
  /** Metadata by key, written in the order of the object; `general.alignment` is obeyed (32 when absent). */
  metadata: Readonly<Record<string, GgufInput>>;
  /** Tensors, written in this order. */
  tensors: readonly GgufTensorData[];
  /** Version of the format in the header. Default 3. */
  version?: number;
}

/** Metadata value of type u32, the type of most counts in GGUF; `value` in 0..2³² - 1 is not checked. */
export const ggufU32 = (value: number): GgufInput => ({ type: "u32", value });
/** Metadata value of type f32; `value` is rounded to it. */
export const ggufF32 = (value: number): GgufInput => ({ type: "f32", value });

const arrayTypes: readonly [new (length: number) => GgufArray, GgufType][] = [
  [Uint8Array, "u8"],
  [Int8Array, "i8"],
  [Uint16Array, "u16"],
  [Int16Array, "i16"],
  [Uint32Array, "u32"],
  [Int32Array, "i32"],
  [Float32Array, "f32"],
  [BigUint64Array, "u64"],
  [BigInt64Array, "i64"],
  [Float64Array, "f64"],
];

/** Bytes that grow. */
class ByteWriter {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  #grow(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.length, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  number(type: GgufType, value: number | bigint): void {
    const at = this.#grow(
      type === "f64" || type.endsWith("64") ? 8 : type.endsWith("32") ? 4 : type.endsWith("16") ? 2 : 1,
    );
    const view = this.#view;
    if (type === "u64") view.setBigUint64(at, BigInt(value), true);
    else if (type === "i64") view.setBigInt64(at, BigInt(value), true);
    else if (type === "f32") view.setFloat32(at, Number(value), true);
    else if (type === "f64") view.setFloat64(at, Number(value), true);
    else if (type === "u32" || type === "i32") view.setUint32(at, Number(value), true);
    else if (type === "u16" || type === "i16") view.setUint16(at, Number(value), true);
    else view.setUint8(at, Number(value));
  }

  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.number("u64", bytes.length);
    this.bytes(bytes);
  }

  value(input: GgufInput): void {
    if (typeof input === "string") {
      this.number("u32", ggufTypes.string);
      this.string(input);
    } else if (typeof input === "boolean") {
      this.number("u32", ggufTypes.bool);
      this.number("u8", input ? 1 : 0);
    } else if ("type" in input) {
      this.number("u32", ggufTypes[input.type]);
      this.number(input.type, input.value);
    } else {
      this.number("u32", ggufTypes.array);
      this.array(input);
    }
  }

  array(items: GgufArray | readonly string[]): void {
    if (ArrayBuffer.isView(items)) {
      const type = arrayTypes.find(([kind]) => items instanceof kind)![1];
      this.number("u32", ggufTypes[type]);
      this.number("u64", items.length);
      this.bytes(new Uint8Array(items.buffer, items.byteOffset, items.byteLength));
      return;
    }
    const [first] = items;
    const kind = typeof first === "boolean" ? "bool" : typeof first === "object" ? "array" : "string";
    this.number("u32", ggufTypes[kind]);
    this.number("u64", items.length);
    for (const item of items) {
      if (typeof item === "string") this.string(item);
      else if (typeof item === "boolean") this.number("u8", item ? 1 : 0);
      else this.array(item);
    }
  }

  done(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.length);
  }
}

const align = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment;

function alignmentOf({ metadata }: GgufContent): number {
  const input = metadata["general.alignment"];
  return typeof input === "object" && "value" in input ? Number(input.value) : 32;
}

function encodeHeader(content: GgufContent): { header: Uint8Array; sizes: number[] } {
  const out = new ByteWriter();
  const alignment = alignmentOf(content);
  out.bytes(new TextEncoder().encode("GGUF"));
  out.number("u32", content.version ?? 3);
  out.number("u64", content.tensors.length);
  out.number("u64", Object.keys(content.metadata).length);
  for (const [key, value] of Object.entries(content.metadata)) {
    out.string(key);
    out.value(value);
  }
  let at = 0;
  const sizes: number[] = [];
  for (const { name, dtype, shape } of content.tensors) {
    const bytes = checkedByteLength(dtype, shape, name, "GGUF to be written", 0);
    if (dtypes[dtype].id >= 64) throw new MllmError("unsupported", `GGUF has no type for ${dtype} (tensor ${name})`);
    out.string(name);
    out.number("u32", shape.length);
    for (const dim of [...shape].reverse()) out.number("u64", dim);
    out.number("u32", dtypes[dtype].id);
    out.number("u64", at);
    sizes.push(bytes);
    at = align(at + bytes, alignment);
  }
  out.bytes(new Uint8Array(align(out.length, alignment) - out.length));
  return { header: out.done(), sizes };
}

/** The file's pieces in order; checks that each tensor's data has the size its shape says. */
function* pieces(content: GgufContent): Generator<Uint8Array> {
  const { header, sizes } = encodeHeader(content);
  const alignment = alignmentOf(content);
  yield header;
  for (const [i, { name, data }] of content.tensors.entries()) {
    let written = 0;
    for (const piece of typeof data === "function" ? data() : [data]) {
      written += piece.byteLength;
      yield new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength);
    }
    if (written !== sizes[i]) {
      throw new MllmError("invalid_argument", `tensor ${name} needs ${sizes[i]} bytes, its data has ${written}`);
    }
    yield new Uint8Array(align(written, alignment) - written);
  }
}

/** The bytes of a GGUF file. Throws as `writeGguf`, but for `io`. */
export function encodeGguf(content: GgufContent): Uint8Array<ArrayBuffer> {
  const parts = [...pieces(content)].map((piece) => piece.slice());
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/**
 * Writes a GGUF file (version 3), tensor data streamed piece by piece.
 *
 * @throws MllmError `invalid_argument` (sizes), `unsupported` (dtype), `invalid_file` (shapes) or `io`
 */
// deno-lint-ignore require-await
export async function writeGguf(path: string, content: GgufContent): Promise<void> {
  wrapIo(path, "write", () => {
    using file = Deno.openSync(path, { write: true, create: true, truncate: true });
    for (const piece of pieces(content)) writeAll(file, piece);
  });
}
