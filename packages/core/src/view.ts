/**
 * Strided views: contiguous strides, reshaping without a copy, byte extents.
 * @module
 */
import { type DType, dtypes, q8aRowBytes } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import { type Dim, formatShape, maxDim, sameDim } from "./scalar.ts";
import type { Storage } from "./storage.ts";

/**
 * How elements lie in memory: by strides, packed in panels of 16 rows for `linear`, or as the keys or values of a
 * quantised cache (native/kernels/kv_page.zig).
 */
export type Layout = "strided" | "panel16" | "kv_keys" | "kv_values";

const layoutWords: Readonly<Record<Layout, string>> = {
  strided: "",
  panel16: " packed",
  kv_keys: " keys",
  kv_values: " values",
};

/** A typed, shaped window into a storage. */
export interface View {
  readonly storage: Storage;
  readonly byteOffset: number;
  readonly dtype: DType;
  readonly shape: readonly Dim[];
  /** In elements, for block types too. */
  readonly strides: readonly number[];
  readonly layout: Layout;
  /** For messages. */
  readonly name?: string;
}

/** Row-major strides in elements. A symbolic dim may only be the first. */
export function contiguousStrides(shape: readonly Dim[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    const dim = shape[i];
    if (typeof dim === "number") step *= dim;
    else if (i > 0) {
      throw new MllmError(
        "unsupported",
        `a symbolic token count must be the outermost dim, not in ${formatShape(shape)}`,
      );
    }
  }
  return strides;
}

/** Whether the elements lie without gaps in row-major order (dims of length 1 may have any stride). */
export function isContiguous(shape: readonly Dim[], strides: readonly number[]): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    const dim = shape[i];
    if (dim !== 1 && strides[i] !== step) return false;
    step *= maxDim(dim);
  }
  return true;
}

/** Number of elements, symbolic dims at their maximum. */
export function elementCount(shape: readonly Dim[]): number {
  let count = 1;
  for (let i = 0; i < shape.length; i++) count *= maxDim(shape[i]);
  return count;
}

/** A byte offset of `elements` elements of a type; block types move by whole blocks. */
export function elementBytes(dtype: DType, elements: number): number {
  const { blockElements, blockBytes } = dtypes[dtype];
  if (blockElements === 1) return elements * blockBytes;
  if (blockElements === 0 || elements % blockElements !== 0) {
    throw new MllmError(
      "invalid_argument",
      `a view of ${dtype} can't start ${elements} elements in: not a whole block`,
    );
  }
  return (elements / blockElements) * blockBytes;
}

/** Bytes from the first to past the last element of a view. */
export function extentBytes(view: View): number {
  if (view.layout !== "strided") return view.storage.bytes - view.byteOffset;
  const { shape, strides, dtype } = view;
  if (elementCount(shape) === 0) return 0;
  if (dtype === "q8a") {
    const k = maxDim(shape[shape.length - 1]);
    return (elementCount(shape) / k) * q8aRowBytes(k);
  }
  const { blockElements, blockBytes } = dtypes[dtype];
  let last = 0;
  for (let i = 0; i < shape.length; i++) last += (maxDim(shape[i]) - 1) * strides[i];
  return (Math.floor(last / blockElements) + 1) * blockBytes;
}

/** Replaces one -1 in the wanted dims by what is left, and checks that the element counts agree. */
export function resolveShape(shape: readonly Dim[], wanted: readonly Dim[]): Dim[] {
  const fail = () =>
    new MllmError(
      "invalid_argument",
      `reshape: ${formatShape(shape)} does not have the elements of ${formatShape(wanted)}`,
    );
  const total = elementCount(shape);
  const hole = wanted.indexOf(-1);
  let known = 1;
  for (let i = 0; i < wanted.length; i++) {
    const dim = maxDim(wanted[i]);
    if (i === hole) continue;
    if (!Number.isInteger(dim) || dim < 0) throw fail();
    known *= dim;
  }
  const out = wanted.slice();
  if (hole >= 0) {
    if (known === 0 || total % known !== 0) throw fail();
    const symbol = shape.find((dim) => typeof dim === "object");
    const rest = total / known;
    const taken = wanted.some((dim) => typeof dim === "object");
    out[hole] = symbol !== undefined && !taken && maxDim(symbol) === rest ? symbol : rest;
  } else if (known !== total) throw fail();
  return out;
}

/** Strides of the same elements in another shape, or undefined where only a copy can do it. */
export function reshapeStrides(
  shape: readonly Dim[],
  strides: readonly number[],
  wanted: readonly Dim[],
): number[] | undefined {
  const from = shape.findIndex((dim) => typeof dim === "object");
  const to = wanted.findIndex((dim) => typeof dim === "object");
  if (from < 0 && to < 0) return numericReshape(shape as number[], strides, wanted as number[]);
  if (from < 0 || to < 0 || !sameDim(shape[from], wanted[to])) return undefined;
  const before = numericReshape(
    shape.slice(0, from) as number[],
    strides.slice(0, from),
    wanted.slice(0, to) as number[],
  );
  const after = numericReshape(
    shape.slice(from + 1) as number[],
    strides.slice(from + 1),
    wanted.slice(to + 1) as number[],
  );
  return before && after && [...before, strides[from], ...after];
}

/** The rule of PyTorch's `computeStride`: runs of old dims that are contiguous among themselves may be re-cut. */
function numericReshape(
  shape: readonly number[],
  strides: readonly number[],
  wanted: readonly number[],
): number[] | undefined {
  if (elementCount(shape) !== elementCount(wanted)) return undefined;
  if (elementCount(shape) === 0) return contiguousStrides(wanted);
  const out = new Array<number>(wanted.length).fill(0);
  let at = wanted.length - 1;
  let chunkElements = 1;
  let viewElements = 1;
  let chunkStride = strides.length > 0 ? strides[strides.length - 1] : 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    chunkElements *= shape[i];
    if (i > 0 && (shape[i - 1] === 1 || strides[i - 1] === chunkElements * chunkStride)) continue;
    while (at >= 0 && (viewElements < chunkElements || wanted[at] === 1)) {
      out[at] = viewElements * chunkStride;
      viewElements *= wanted[at];
      at--;
    }
    if (viewElements !== chunkElements) return undefined;
    if (i > 0) {
      chunkStride = strides[i - 1];
      chunkElements = 1;
      viewElements = 1;
    }
  }
  while (at >= 0) {
    if (wanted[at] !== 1) return undefined;
    out[at--] = viewElements * chunkStride;
  }
  return out;
}

/** Describes an operand for messages: `x: f32 [2, 3]`. */
export function describeView(view: Pick<View, "dtype" | "shape" | "layout" | "name">, role?: string): string {
  const label = view.name === undefined ? role : role === undefined ? view.name : `${role} "${view.name}"`;
  return `${label === undefined ? "" : `${label}: `}${view.dtype}${layoutWords[view.layout]} ${
    formatShape(view.shape)
  }`;
}
