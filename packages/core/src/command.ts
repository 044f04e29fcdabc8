/**
 * Writes op records as the structs that native code reads; offsets come from the generated ABI.
 * @module
 */
import { type DType, dtypes } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import * as abi from "./native/abi.ts";
import { registerIds, type Scalar } from "./scalar.ts";
import type { View } from "./view.ts";

const words = abi.Command.size / 4;
const command = abi.Command.offset;
const desc = abi.TensorDesc.offset;
const descWords = abi.TensorDesc.size / 4;
const TWO_32 = 2 ** 32;

/** Where a view's bytes start: an absolute address, or an offset into the arena. */
export interface Place {
  readonly space: "address" | "arena";
  readonly offset: number;
}

/** An op record with everything decided. */
export interface OpRecord {
  readonly op: abi.OpName;
  readonly variant: number;
  readonly threads: number;
  readonly inputs: readonly (View | undefined)[];
  readonly outputs: readonly View[];
  readonly ints: readonly Scalar[];
  readonly floats: readonly number[];
}

const dtypeIds = Object.fromEntries(Object.entries(dtypes).map(([name, { id }]) => [name, id])) as Record<
  DType,
  number
>;

/** A buffer of `capacity` Command structs. */
export class CommandWriter {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #u32: Uint32Array;
  readonly #f32: Float32Array;

  constructor(readonly capacity: number) {
    this.bytes = new Uint8Array(capacity * abi.Command.size);
    this.#u32 = new Uint32Array(this.bytes.buffer);
    this.#f32 = new Float32Array(this.bytes.buffer);
  }

  /** The bytes of one record. */
  slice(index: number): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(index * abi.Command.size, (index + 1) * abi.Command.size);
  }

  /** Encodes a record at `index`. `place` says where storages without an address lie; without it all have one. */
  write(index: number, record: OpRecord, place?: (view: View) => Place): void {
    const u32 = this.#u32;
    const base = index * words;
    u32.fill(0, base, base + words);
    u32[base + command.op / 4] = abi.opTable[record.op].id;
    u32[base + command.variant / 4] = record.variant;
    u32[base + command.threads / 4] = record.threads;
    u32[base + command.inputCount / 4] = record.inputs.length;
    u32[base + command.outputCount / 4] = record.outputs.length;
    for (let i = 0; i < record.inputs.length; i++) {
      const view = record.inputs[i];
      if (view !== undefined) this.#writeView(base + command.inputs / 4 + i * descWords, view, place);
    }
    for (let i = 0; i < record.outputs.length; i++) {
      this.#writeView(base + command.outputs / 4 + i * descWords, record.outputs[i], place);
    }
    this.#writeInts(base, record.ints);
    for (let i = 0; i < record.floats.length; i++) this.#f32[base + command.floats / 4 + i] = record.floats[i];
  }

  #writeInts(base: number, ints: readonly Scalar[]): void {
    for (let i = 0; i < ints.length; i++) {
      const value = ints[i];
      if (typeof value === "number") writeI64(this.#u32, base + command.ints / 4 + i * 2, value);
      else this.bytes[base * 4 + command.intRegisters + i] = registerIds[value.register];
    }
  }

  #writeView(at: number, view: View, place?: (view: View) => Place): void {
    const u32 = this.#u32;
    const { storage, shape, strides } = view;
    if (storage.kind === "memory") {
      writeI64(u32, at + desc.data / 4, storage.address + view.byteOffset);
    } else {
      if (place === undefined) throw new MllmError("internal", "a captured tensor reached the eager path");
      const { space, offset } = place(view);
      writeI64(u32, at + desc.data / 4, offset + view.byteOffset);
      if (space === "arena") u32[at + desc.space / 4] = abi.Space.arena;
    }
    u32[at + desc.dtype / 4] = dtypeIds[view.dtype];
    u32[at + desc.layout / 4] = abi.Layout[view.layout];
    u32[at + desc.rank / 4] = shape.length;
    for (let i = 0; i < shape.length; i++) {
      const dim = shape[i];
      if (typeof dim === "number") {
        writeI64(u32, at + desc.shape / 4 + i * 2, dim);
      } else {
        writeI64(u32, at + desc.shape / 4 + i * 2, dim.max);
        u32[at + desc.symbolicDims / 4] |= 1 << i;
      }
      writeI64(u32, at + desc.strides / 4 + i * 2, strides[i]);
    }
  }
}

/** Writes a safe integer as a little-endian i64 without a BigInt. */
export function writeI64(u32: Uint32Array, at: number, value: number): void {
  u32[at] = value;
  u32[at + 1] = Math.floor(value / TWO_32);
}
