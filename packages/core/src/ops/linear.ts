/**
 * Matrix products: packed weights, quantised activations, plain matmul.
 * @module
 */
import { dtypes } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { keep } from "../tidy.ts";
import type { Tensor } from "../tensor.ts";
import { describeView } from "../view.ts";
import { callOne, type OutOption } from "./call.ts";

/** Quantises x f32 [rows, k] to int8 in blocks of 32: q8a [rows, k]. k divides by 32. */
export function quantizeRows(x: Tensor, options?: OutOption): Tensor {
  return callOne("quantize_rows", [x], undefined, undefined, undefined, options?.out);
}

/** Packs weights [n, k] (f32, f16, bf16 or blocks) into the backend's layout for `linear` and `embedding`. */
export function packWeight(w: Tensor): Tensor {
  w.assertLive("pack_weight");
  const [n, k] = w.shape;
  if (w.shape.length !== 2 || typeof n !== "number" || typeof k !== "number") {
    throw new MllmError("invalid_argument", `pack_weight: ${describeView(w, "w")} must be weights [n, k]`);
  }
  const packed = callOne("pack_weight", [w], undefined, undefined, { packed: w.backend.packedSize(w.dtype, n, k) });
  packed.name = w.name;
  return packed;
}

/**
 * x [rows, k] @ wᵀ + bias for packed weights [n, k]: f32 [rows, n].
 *
 * With quantised weights and a backend opened with activations "i8", x is quantised to int8 per block of 32 first; the
 * quantised form is remembered on x, so linears that share x share it.
 */
export function linear(x: Tensor, w: Tensor, bias?: Tensor, options?: OutOption): Tensor {
  const quantise = x.dtype === "f32" && w.backend.activations === "i8" && dtypes[w.dtype].quantized;
  const input = quantise ? quantised(x) : x;
  return callOne("linear", [input, w, bias], undefined, undefined, undefined, options?.out);
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

/** a [..., m, k] @ b [..., k, n], batched along equal leading dims, any strides. */
export function matmul(a: Tensor, b: Tensor, options?: OutOption): Tensor {
  return callOne("matmul", [a, b], undefined, undefined, undefined, options?.out);
}
