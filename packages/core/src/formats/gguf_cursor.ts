import { MllmError } from "../errors.ts";
import type { ByteSource } from "./byte_source.ts";
import type { GgufArray, GgufValue } from "./gguf.ts";
import { TextList } from "./text_list.ts";
import { decodeUtf8 } from "./utf8.ts";
import { quoted } from "./weight_info.ts";

/** Metadata value types of GGUF by id. */
export const ggufTypes = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;

/** Name of a metadata value type, a key of {@linkcode ggufTypes}. */
export type GgufType = keyof typeof ggufTypes;

const fixedBytes: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const windowBytes = 1 << 20;
/** Everything before the tensor data together; real files hold up to some 40 MB. */
const headerBytesMax = 1 << 29;
const stringBytesMax = 1 << 26;
const nameBytesMax = 65535;
const depthMax = 4;
const nestedMax = 1 << 20;
const again = "The file is damaged or incomplete: download it again";

/** Reads a GGUF header front to back through a window, checking every count against the bytes that are left. */
export class GgufCursor {
  /** Offset in the file of the next byte. */
  get at(): number {
    return this.#windowStart + this.#pos;
  }

  #window: Uint8Array = new Uint8Array(0);
  #view = new DataView(this.#window.buffer);
  #windowStart = 0;
  #pos = 0;
  #nested = 0;

  constructor(private source: ByteSource) {}

  #fail(what: string, at: number): never {
    throw new MllmError("invalid_file", what, { file: this.source.name, offset: at, next: again });
  }

  /** Makes `length` bytes available at #pos. */
  #ensure(length: number): void {
    if (length <= this.#window.length - this.#pos) return;
    const at = this.at;
    const left = this.source.size - at;
    if (length > left) {
      this.#fail(`the GGUF header needs ${length} more bytes, but the file ends at ${this.source.size}`, at);
    }
    if (at + length > headerBytesMax) this.#fail(`a GGUF header of more than ${headerBytesMax} bytes`, at);
    this.#window = this.source.read(at, Math.min(left, Math.max(length, windowBytes)));
    this.#view = new DataView(this.#window.buffer, this.#window.byteOffset, this.#window.byteLength);
    this.#windowStart = at;
    this.#pos = 0;
  }

  #take(length: number): number {
    this.#ensure(length);
    const pos = this.#pos;
    this.#pos += length;
    return pos;
  }

  u32(): number {
    const pos = this.#take(4);
    return this.#view.getUint32(pos, true);
  }

  /** A u64 as a number: exact to 2^53, above that only known to be too large. */
  u64(): number {
    const pos = this.#take(8);
    return this.#view.getUint32(pos, true) + this.#view.getUint32(pos + 4, true) * 2 ** 32;
  }

  /** A count of things that take at least `bytesEach` of the rest of the file. */
  count(what: string, bytesEach: number, max: number): number {
    const at = this.at;
    const count = this.u64();
    if (count > max) this.#fail(`${count} ${what}, more than the ${max} allowed`, at);
    if (count * bytesEach > this.source.size - this.at) this.#fail(`${count} ${what} do not fit into the file`, at);
    return count;
  }

  /** A key or tensor name: non-empty UTF-8 of at most 65535 bytes. */
  name(what: string): string {
    const at = this.at;
    const length = this.u64();
    if (length < 1 || length > nameBytesMax) this.#fail(`a ${what} of ${length} bytes`, at);
    const pos = this.#take(length);
    const text = decodeUtf8(this.#window, pos, pos + length);
    if (text.includes("\ufffd")) this.#fail(`a ${what} that is not UTF-8: ${quoted(text)}`, at);
    return text;
  }

  #string(key: string): string {
    const at = this.at;
    const length = this.u64();
    if (length > stringBytesMax) this.#fail(`metadata ${quoted(key)}: a string of ${length} bytes`, at);
    const pos = this.#take(length);
    return decodeUtf8(this.#window, pos, pos + length);
  }

  /** The value of metadata `key`: its type, then its bytes. */
  value(key: string): GgufValue {
    const at = this.at;
    const type = this.u32();
    if (type === ggufTypes.string) return this.#string(key);
    if (type === ggufTypes.array) return this.#array(key, 1);
    const length = fixedBytes[type];
    if (length === undefined) this.#fail(`metadata ${quoted(key)} has the unknown type ${type}`, at);
    return this.#scalar(key, type, this.#take(length));
  }

  #scalar(key: string, type: number, pos: number): number | bigint | boolean {
    const view = this.#view;
    switch (type) {
      case ggufTypes.u8:
        return view.getUint8(pos);
      case ggufTypes.i8:
        return view.getInt8(pos);
      case ggufTypes.u16:
        return view.getUint16(pos, true);
      case ggufTypes.i16:
        return view.getInt16(pos, true);
      case ggufTypes.u32:
        return view.getUint32(pos, true);
      case ggufTypes.i32:
        return view.getInt32(pos, true);
      case ggufTypes.f32:
        return view.getFloat32(pos, true);
      case ggufTypes.f64:
        return view.getFloat64(pos, true);
      case ggufTypes.u64:
        return narrow(view.getBigUint64(pos, true));
      case ggufTypes.i64:
        return narrow(view.getBigInt64(pos, true));
      default: {
        const byte = view.getUint8(pos);
        if (byte > 1) this.#fail(`metadata ${quoted(key)}: a boolean of ${byte}`, this.#windowStart + pos);
        return byte === 1;
      }
    }
  }

  #array(key: string, depth: number): GgufArray {
    const at = this.at;
    if (depth > depthMax) this.#fail(`metadata ${quoted(key)}: arrays nested deeper than ${depthMax}`, at);
    const type = this.u32();
    if (type === ggufTypes.string) return this.#strings(key);
    if (type === ggufTypes.array) {
      const count = this.count(`arrays in metadata ${quoted(key)}`, 12, nestedMax);
      // Bounded over the whole file: each costs far more memory than its 12 bytes.
      this.#nested += count;
      if (this.#nested > nestedMax) this.#fail(`more than ${nestedMax} nested arrays`, at);
      const arrays: GgufArray[] = [];
      for (let i = 0; i < count; i++) arrays.push(this.#array(key, depth + 1));
      return arrays;
    }
    const bytesEach = fixedBytes[type];
    if (bytesEach === undefined) this.#fail(`metadata ${quoted(key)} is an array of the unknown type ${type}`, at);
    const count = this.count(`elements in metadata ${quoted(key)}`, bytesEach, headerBytesMax);
    const pos = this.#take(count * bytesEach);
    if (type === ggufTypes.bool) {
      const flags: boolean[] = [];
      for (let i = 0; i < count; i++) flags.push(this.#scalar(key, type, pos + i) as boolean);
      return flags;
    }
    return typedArray(type, this.#window.slice(pos, pos + count * bytesEach).buffer);
  }

  /** The hot loop, with the array's bytes kept as they are: a vocabulary is 150,000 strings. */
  #strings(key: string): TextList {
    const count = this.count(`strings in metadata ${quoted(key)}`, 8, 1 << 24);
    const starts = new Uint32Array(count + 1);
    const pieces: Uint8Array[] = [];
    let [done, from, pos, view] = [0, this.#pos, this.#pos, this.#view];
    const ensure = (length: number) => {
      pieces.push(this.#window.slice(from, pos));
      done += pos - from;
      this.#pos = pos;
      this.#ensure(length);
      [from, pos, view] = [this.#pos, this.#pos, this.#view];
    };
    for (let i = 0; i < count; i++) {
      if (view.byteLength - pos < 8) ensure(8);
      const length = view.getUint32(pos, true) + view.getUint32(pos + 4, true) * 2 ** 32;
      if (length > stringBytesMax) {
        this.#fail(`metadata ${quoted(key)}: a string of ${length} bytes`, this.#windowStart + pos);
      }
      pos += 8;
      if (view.byteLength - pos < length) ensure(length);
      starts[i] = done + pos - from;
      pos += length;
    }
    this.#pos = pos;
    pieces.push(this.#window.slice(from, this.#pos));
    starts[count] = done + this.#pos - from + 8;
    return new TextList(concat(pieces), starts, 8).wellFormed();
  }
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  if (pieces.length === 1) return pieces[0];
  const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let end = 0;
  for (const piece of pieces) {
    all.set(piece, end);
    end += piece.length;
  }
  return all;
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function typedArray(type: number, buffer: ArrayBuffer): GgufArray {
  switch (type) {
    case ggufTypes.u8:
      return new Uint8Array(buffer);
    case ggufTypes.i8:
      return new Int8Array(buffer);
    case ggufTypes.u16:
      return new Uint16Array(buffer);
    case ggufTypes.i16:
      return new Int16Array(buffer);
    case ggufTypes.u32:
      return new Uint32Array(buffer);
    case ggufTypes.i32:
      return new Int32Array(buffer);
    case ggufTypes.f32:
      return new Float32Array(buffer);
    case ggufTypes.u64:
      return new BigUint64Array(buffer);
    case ggufTypes.i64:
      return new BigInt64Array(buffer);
    default:
      return new Float64Array(buffer);
  }
}
