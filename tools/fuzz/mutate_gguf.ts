import { encodeGguf, type GgufInput } from "@mllm/core";
import type { Random } from "../random_model/random.ts";
import { hostileNumber, putNumber } from "./mutate_bytes.ts";

/** Where a number of a GGUF header lies. */
interface Field {
  at: number;
  bytes: number;
}

const scalarBytes: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

/** Finds counts, lengths, types, dims, offsets and values of a valid file; of long arrays only the first elements. */
export function ggufFields(file: Uint8Array): Field[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const fields: Field[] = [];
  let at = 4;
  const number = (bytes: number, keep = true): number => {
    if (keep) fields.push({ at, bytes });
    const value = bytes === 8 ? Number(view.getBigUint64(at, true)) : bytes === 4 ? view.getUint32(at, true) : 0;
    at += bytes;
    return value;
  };
  const text = (keep = true): void => {
    const length = number(8, keep);
    at += length;
  };
  const value = (type: number, keep = true): void => {
    if (type === 8) text(keep);
    else if (type === 9) {
      const element = number(4);
      const count = number(8);
      for (let i = 0; i < count; i++) value(element, i < 3);
    } else number(scalarBytes[type], keep);
  };
  number(4);
  const tensors = number(8);
  const pairs = number(8);
  for (let i = 0; i < pairs; i++) {
    text();
    value(number(4));
  }
  for (let i = 0; i < tensors; i++) {
    text();
    const rank = number(4);
    for (let dim = 0; dim < rank; dim++) number(8);
    number(4);
    number(8);
  }
  return fields;
}

/** A copy with one to three of the header's numbers replaced. */
export function mutateGguf(random: Random, file: Uint8Array, fields: readonly Field[]): Uint8Array {
  const out = file.slice();
  for (let i = random.below(3); i >= 0; i--) {
    const { at, bytes } = fields[random.below(fields.length)];
    let old = 0n;
    for (let b = bytes - 1; b >= 0; b--) old = (old << 8n) | BigInt(out[at + b]);
    // Types are small numbers: stay among them half of the time.
    const value = bytes === 4 && random.below(2) === 0
      ? BigInt(random.below(45))
      : hostileNumber(random, file.length, old);
    putNumber(out, at, bytes, value);
  }
  return out;
}

/** Changes metadata of a valid file by meaning: other values and types for keys that parsers look at, and bombs. */
export function hostileMetadata(
  random: Random,
  metadata: Readonly<Record<string, GgufInput>>,
): Record<string, GgufInput> {
  const out: Record<string, GgufInput> = { ...metadata };
  const keys = Object.keys(out);
  for (let i = random.below(3); i >= 0; i--) {
    const key = keys[random.below(keys.length)];
    if (random.below(5) === 0) delete out[key];
    else out[key] = hostileValue(random, out[key] ?? "", keys.map((name) => metadata[name]));
  }
  return out;
}

function hostileValue(random: Random, old: GgufInput, others: readonly GgufInput[]): GgufInput {
  const n = [0, 1, 7, 500, 5000][random.below(5)];
  switch (random.below(10)) {
    case 0:
      return { type: "i32", value: [-1, 0, -(2 ** 31), 2 ** 31 - 1][random.below(4)] };
    case 1:
      return { type: "u64", value: hostileNumber(random, 1000, 1n) & (2n ** 64n - 1n) };
    case 2:
      return { type: random.below(2) ? "f32" : "f64", value: [NaN, Infinity, -1, 0, 1e300, 5e-324][random.below(6)] };
    case 3:
      return ["", "\0", "x".repeat(n), "gpt2", "llama", "qwen3", "gemma3", "<|im_end|>", "🎉\ud800"][random.below(9)];
    case 4:
      return random.below(2) === 0;
    case 5:
      return Array.from({ length: n }, (_, i) => (random.below(4) ? `t${i}` : ""));
    case 6:
      return new Int32Array(n).fill(random.below(9) - 2);
    case 7:
      return Array.from({ length: n }, () => [] as boolean[]);
    case 8:
      if (Array.isArray(old) && typeof old[0] === "string") {
        const list = old.slice() as unknown as string[];
        const at = random.below(list.length);
        list[at] = random.below(2) ? list[random.below(list.length)] : "x".repeat(random.below(3000));
        return random.below(3) === 0 ? list.slice(0, at) : list;
      }
      return others[random.below(others.length)];
    default:
      return others[random.below(others.length)];
  }
}

/** A file of this metadata and a few small tensors. */
export function metadataFile(metadata: Readonly<Record<string, GgufInput>>): Uint8Array {
  return encodeGguf({ metadata, tensors: [] });
}
