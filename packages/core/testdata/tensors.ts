import { fileURLToPath } from "node:url";
import { readSafetensors } from "../src/formats/safetensors.ts";

/** Path of a file in this folder. */
export function testdata(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** Tensors of a safetensors file by name. */
export interface Tensors {
  names: string[];
  get(name: string): Uint8Array | undefined;
  /** An F32 tensor as floats. */
  floats(name: string): Float32Array;
}

/** Reads a whole safetensors file for a test. */
export function readTensors(path: string): Tensors {
  const bytes = Deno.readFileSync(path);
  const { tensors } = readSafetensors(bytes, path);
  const get = (name: string) => {
    const info = tensors.get(name);
    return info && bytes.subarray(info.offset, info.offset + info.bytes);
  };
  return { names: [...tensors.keys()], get, floats: (name) => new Float32Array(get(name)!.slice().buffer) };
}
