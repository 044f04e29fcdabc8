/** What `mllm tune` runs: a loaded model, or layers of linears in usual sizes. */
import {
  add,
  type Backend,
  byteLength,
  capture,
  type DType,
  dtypes,
  KvCache,
  linear,
  packWeight,
  type Program,
  Tensor,
} from "@mllm/core";
import type { LanguageModel } from "@mllm/models";
import type { Point } from "./rounds.ts";
import type { Workload } from "./tuner.ts";

/** Tokens that a cache holds: as many as any comparison runs. */
const CONTEXT_MAX = 2048;

/** A loaded model with a cache of its own. Dispose it before the model. */
export class ModelWorkload implements Workload, Disposable {
  readonly #model: LanguageModel;
  readonly #cache: KvCache;

  constructor(readonly name: string, model: LanguageModel) {
    this.#model = model;
    const { backend, network, settings } = model;
    const { numHiddenLayers, numKeyValueHeads, headDim } = network.config;
    this.#cache = new KvCache(backend, {
      layers: numHiddenLayers,
      kvHeads: numKeyValueHeads,
      headDim,
      capacity: CONTEXT_MAX,
      keyDtype: settings.keyDtype,
      valueDtype: settings.valueDtype,
    });
    // Untouched memory is one page of zeros, read from the processor's cache.
    for (const tensor of [this.#cache.keys, this.#cache.values]) fill(tensor);
  }

  capture(tokensMax: number): Program {
    const { backend, network } = this.#model;
    const inputs = { ids: { dtype: "i32", shape: ["tokens"] } } as const;
    return capture(backend, { tokensMax, inputs }, ({ ids }, { position, last }) => ({
      logits: network.forward({ ids, position, last, cache: this.#cache }),
    }));
  }

  run(program: Program, { tokens, position }: Point): void {
    program.inputs.ids.write(Int32Array.from({ length: tokens }, (_, i) => i));
    program.run({ tokens, position });
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
  }
}

/** Hidden and intermediate sizes of models from 0.5 to 8 billion weights, as Qwen's and Llama's have them. */
export const USUAL_SIZES: readonly (readonly [number, number])[] = [[896, 4864], [1024, 3072], [2048, 6144], [
  4096,
  12288,
]];
/** Types that most files have. */
export const USUAL_DTYPES: readonly DType[] = ["q4_0", "q8_0", "q4_k", "q6_k"];

/** Weights are read from memory, not from a cache, as in a model. */
const WEIGHT_BYTES_MIN = 128 << 20;
/** Any byte that makes no denormal number of any type; times do not depend on values. */
const FILL = 0x11;

function fill({ storage }: Tensor): void {
  if (storage.kind === "memory") storage.bytesView().fill(FILL);
}

/** Whether both sizes are whole blocks of the type. */
export function suits(dtype: DType, sizes: readonly number[]): boolean {
  return sizes.every((size) => size % dtypes[dtype].blockElements === 0);
}

/** Layers of three linears, [h, h], [i, h] and [h, i], of one type and size. */
export class LayersWorkload implements Workload, Disposable {
  readonly name: string;
  readonly #layers: Tensor[][] = [];
  readonly #hidden: number;
  readonly #backend: Backend;

  /** As many layers as take `bytesMin`. */
  constructor(
    backend: Backend,
    dtype: DType,
    [hidden, intermediate]: readonly [number, number],
    bytesMin: number = WEIGHT_BYTES_MIN,
  ) {
    this.name = `${dtype} ${hidden}/${intermediate}`;
    this.#hidden = hidden;
    this.#backend = backend;
    const shapes = [[hidden, hidden], [intermediate, hidden], [hidden, intermediate]];
    const layerBytes = shapes.reduce((sum, shape) => sum + byteLength(dtype, shape), 0);
    for (let bytes = 0; bytes < bytesMin; bytes += layerBytes) {
      this.#layers.push(shapes.map((shape) => {
        using weights = Tensor.from(backend, new Uint8Array(byteLength(dtype, shape)).fill(FILL), shape, dtype);
        return packWeight(weights);
      }));
    }
  }

  capture(tokensMax: number): Program {
    const inputs = { x: { dtype: "f32", shape: ["tokens", this.#hidden] } } as const;
    return capture(this.#backend, { tokensMax, inputs }, ({ x }) => {
      let h = x;
      for (const [mix, up, down] of this.#layers) h = add(linear(h, mix), linear(linear(h, up), down));
      return { h };
    });
  }

  /** Activations are zeros: times do not depend on values, nor on the position, as there is no attention. */
  run(program: Program, { tokens }: Point): void {
    program.run({ tokens, position: 0 });
  }

  [Symbol.dispose](): void {
    for (const weights of this.#layers.flat()) weights.free();
  }
}
