import { readSafetensors } from "../src/formats/safetensors.ts";

/** A file of the shared reference data, or undefined where that is not checked out beside the repository. */
export function goldenFile(name: string): URL | undefined {
  const url = new URL(`../../../../shared/golden/${name}`, import.meta.url);
  try {
    Deno.statSync(url);
    return url;
  } catch {
    return undefined;
  }
}

/** Tensors of a safetensors file by name. */
export interface Tensors {
  names: string[];
  get(name: string): Uint8Array | undefined;
  /** An F32 tensor as floats. */
  floats(name: string): Float32Array;
}

/** Reads a whole safetensors file for a test. */
export function readTensors(url: URL): Tensors {
  const bytes = Deno.readFileSync(url);
  const { tensors } = readSafetensors(bytes, url.pathname);
  const get = (name: string) => {
    const info = tensors.get(name);
    return info && bytes.subarray(info.offset, info.offset + info.bytes);
  };
  return { names: [...tensors.keys()], get, floats: (name) => new Float32Array(get(name)!.slice().buffer) };
}
