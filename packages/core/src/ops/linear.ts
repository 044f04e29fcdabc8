/**
 * Matrix products: packed weights, quantised activations, plain matmul.
 * @module
 */
import type { Backend } from "../backend.ts";
import { type DType, dtypes } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { maxDim } from "../scalar.ts";
import { MemoryStorage } from "../storage.ts";
import { Tensor } from "../tensor.ts";
import { keep } from "../tidy.ts";
import { contiguousStrides, describeView } from "../view.ts";
import { callOne, type OutOption, type QuantizedOption } from "./call.ts";

/**
 * Quantises activations to int8 in blocks of 32: scale = max|x| / 127, code = round to nearest even(x * (1 / scale)).
 * x: f32 [rows, k], rows contiguous, k a multiple of 32 (else `invalid_argument`). Gives q8a [rows, k] for `linear`.
 */
export function quantizeRows(x: Tensor, options?: OutOption): Tensor {
  return callOne("quantize_rows", [x], undefined, undefined, undefined, options?.out);
}

/**
 * Packs weights [n, k] (f32, f16, bf16 or blocks) into the backend's layout for `linear` and `embedding`; the type of
 * the packed weights is the backend's choice. `w` stays the caller's.
 *
 * @returns [n, k] in layout panel16
 * @throws {MllmError} `invalid_argument` for another rank, `unsupported` for a type that the backend can't pack
 */
export function packWeight(w: Tensor, options?: OutOption): Tensor {
  w.assertLive("pack_weight");
  const [n, k] = w.shape;
  if (w.shape.length !== 2 || typeof n !== "number" || typeof k !== "number") {
    throw new MllmError("invalid_argument", `pack_weight: ${describeView(w, "w")} must be weights [n, k]`);
  }
  const size = w.backend.packedSize(w.dtype, n, k);
  const packed = callOne("pack_weight", [w], undefined, undefined, { packed: size }, options?.out);
  packed.name = w.name;
  return packed;
}

/**
 * Memory for what `packWeight` makes of weights [n, k] of type `dtype`, as its `out`; contents undefined, and taken with
 * the first use, which may throw `out_of_memory`. Throws `unsupported` for a type that the backend can't pack.
 */
export function emptyPacked(backend: Backend, dtype: DType, shape: readonly [number, number]): Tensor {
  const { bytes, dtype: type } = backend.packedSize(dtype, ...shape);
  const storage = MemoryStorage.deferred(backend, bytes);
  return new Tensor(storage, 0, type, shape, contiguousStrides(shape), "panel16", backend);
}

/**
 * x wᵀ + bias. A row's bits depend neither on the number of rows nor on the threads; but at level `amx` x86 rounds both
 * factors to bf16 when there are 64 q8a rows or more, and a row's bits then depend on that.
 *
 * With quantised weights and a backend opened with activations "i8", x is quantised to int8 per block of 32 first; the
 * quantised form is remembered on x, so linears that share x share it.
 *
 * @param x f32 or q8a [rows, k], rows contiguous
 * @param w packed weights [n, k]
 * @param bias f32 [n]
 * @returns f32 [rows, n]
 * @throws {MllmError} `invalid_argument` when x and w differ in k, or w is not packed
 */
export function linear(x: Tensor, w: Tensor, bias?: Tensor, options?: OutOption): Tensor {
  const input = x.dtype === "f32" && quantizesInput(w) ? quantised(x) : x;
  return callOne("linear", [input, w, bias], undefined, undefined, undefined, options?.out);
}

/**
 * The gated half of a feed-forward block (SwiGLU, Shazeer 2020): silu(x gateᵀ) * (x upᵀ), the bits of `swiglu` of both
 * `linear`, without either product in memory. x is quantised first where it is f32, as `linear` does it.
 *
 * @param x f32 or q8a [rows, k], rows contiguous
 * @param gate packed weights [n, k], quantised, n a multiple of 32
 * @param up the same, of the type of `gate`
 * @returns f32 [rows, n], or q8a if wanted
 * @throws {MllmError} `invalid_argument` when x, gate and up do not fit each other (`fitSwiglu`)
 */
export function linearSwiglu(x: Tensor, gate: Tensor, up: Tensor, options?: QuantizedOption): Tensor {
  const input = x.dtype === "f32" ? quantised(x) : x;
  return callOne("linear_swiglu", [input, gate, up], undefined, undefined, options, options?.out);
}

/** Whether `linearSwiglu` takes these weights. */
export function fitSwiglu(gate: Pick<Tensor, "dtype" | "shape">, up: Pick<Tensor, "dtype" | "shape">): boolean {
  return dtypes[gate.dtype].quantized && gate.dtype === up.dtype && maxDim(gate.shape[0]) % 32 === 0;
}

/** Whether `linear` with these weights quantises f32 rows first. */
export function quantizesInput(w: Tensor): boolean {
  return w.backend.activations === "i8" && dtypes[w.dtype].quantized;
}

function quantised(x: Tensor): Tensor {
  const { version } = x.storage;
  const known = x.companion;
  if (known !== undefined && known.version === version && !known.tensor.isFreed) return known.tensor;
  known?.tensor.free();
  const tensor = keep(quantizeRows(x));
  x.companion = { tensor, version };
  return tensor;
}

/**
 * a b, batched along equal leading dims. a: f32 [..., m, k], b: f32 [..., k, n], any strides. Gives f32 [..., m, n].
 */
export function matmul(a: Tensor, b: Tensor, options?: OutOption): Tensor {
  return callOne("matmul", [a, b], undefined, undefined, undefined, options?.out);
}
