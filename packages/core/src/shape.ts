/**
 * What every op accepts and what it gives: one entry per row of the op table, enforced by the type checker.
 * @module
 */
import { type DType, dtypes } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import { type OpName, opTable } from "./native/abi.ts";
import { type Dim, maxDim, sameDim, sameShape } from "./scalar.ts";
import { describeView, isContiguous, type Layout, type View } from "./view.ts";

/** Type and shape of an output. */
export interface OutputSpec {
  readonly dtype: DType;
  readonly shape: readonly Dim[];
  readonly layout?: Layout;
  /** Bytes, where the layout is the backend's own. */
  readonly bytes?: number;
}

/** What decides an output and is neither an input nor an int or float of the op. */
export interface ShapeOptions {
  /** `copy`: type of the result. */
  readonly dtype?: DType;
  /** `take_rows`, `topk`: rows or columns of the result. */
  readonly count?: number;
  /** `pack_weight`: what the backend said. */
  readonly packed?: { readonly bytes: number; readonly dtype: DType };
  /** `kv_append`: the cache that is written. */
  readonly cache?: View;
}

type Inputs = readonly (View | undefined)[];
type Infer = (inputs: Inputs, options: ShapeOptions, check: Checks) => OutputSpec[];

/** Assertions about operands that name the operand when they fail. */
export class Checks {
  constructor(readonly op: OpName, readonly inputs: Inputs) {}

  /** Throws `invalid_argument` naming the op, the problem and every operand. */
  fail(problem: string): never {
    throw new MllmError("invalid_argument", `${describeCall(this.op, this.inputs)}: ${problem}`);
  }

  input(index: number): View {
    return this.inputs[index] ?? this.fail(`${this.#role(index)} is missing`);
  }

  dtype(index: number, ...allowed: readonly DType[]): View {
    const view = this.input(index);
    if (!allowed.includes(view.dtype)) this.fail(`${this.#role(index)} must be ${allowed.join(" or ")}`);
    return view;
  }

  /** A plain f32 operand of at least `rank` dims. */
  f32(index: number, rank = 1): View {
    const view = this.dtype(index, "f32");
    if (view.shape.length < rank) this.fail(`${this.#role(index)} needs at least ${rank} dims`);
    return view;
  }

  shape(index: number, shape: readonly Dim[]): void {
    if (!sameShape(this.input(index).shape, shape)) {
      this.fail(`${this.#role(index)} must have shape [${shape.map((dim) => maxDim(dim))}]`);
    }
  }

  rank(index: number, rank: number): View {
    const view = this.input(index);
    if (view.shape.length !== rank) this.fail(`${this.#role(index)} must have ${rank} dims`);
    return view;
  }

  contiguous(index: number): View {
    const view = this.input(index);
    if (!isContiguous(view.shape, view.strides)) this.fail(`${this.#role(index)} must be contiguous (copy it first)`);
    return view;
  }

  strided(index: number): View {
    const view = this.input(index);
    if (view.layout !== "strided") this.fail(`${this.#role(index)} must not be packed`);
    return view;
  }

  #role(index: number): string {
    return opTable[this.op].inputs[index].name;
  }
}

/** `op(x: f32 [2, 3], weight "norm": f32 [3])` for messages. */
export function describeCall(op: OpName, inputs: Inputs): string {
  const parts: string[] = [];
  inputs.forEach((view, i) => view && parts.push(describeView(view, opTable[op].inputs[i]?.name)));
  return `${op}(${parts.join(", ")})`;
}

const like = (view: View): OutputSpec => ({ dtype: "f32", shape: view.shape });
const last = (view: View): Dim => view.shape[view.shape.length - 1];

const unary: Infer = (_inputs, _options, check) => [like(check.f32(0))];

const gated: Infer = (_inputs, _options, check) => {
  const gate = check.f32(0);
  check.f32(1);
  check.shape(1, gate.shape);
  return [like(gate)];
};

const broadcast: Infer = (_inputs, _options, check) => {
  const a = check.f32(0);
  const b = check.f32(1);
  const skip = a.shape.length - b.shape.length;
  if (skip < 0 || !b.shape.every((dim, i) => sameDim(dim, a.shape[skip + i]))) {
    check.fail("b must have the shape of a or of its trailing dims");
  }
  return [like(a)];
};

const rowVector = (check: Checks, index: number, n: Dim): void => {
  check.f32(index);
  check.shape(index, [n]);
};

const rmsnorm: Infer = (_inputs, _options, check) => {
  const x = check.f32(0);
  rowVector(check, 1, last(x));
  return [like(x)];
};

const rmsnormResidual: Infer = (_inputs, _options, check) => {
  const x = check.f32(0);
  check.f32(1);
  check.shape(1, x.shape);
  rowVector(check, 2, last(x));
  return [like(x), like(x)];
};

const layernorm: Infer = (inputs, _options, check) => {
  const x = check.f32(0);
  rowVector(check, 1, last(x));
  if (inputs[2] !== undefined) rowVector(check, 2, last(x));
  return [like(x)];
};

const floats = ["f32", "f16", "bf16"] as const;

const copy: Infer = (inputs, { dtype }, check) => {
  const x = check.input(0);
  const packed = x.layout === "panel16" || dtypes[x.dtype].quantized;
  if (x.dtype === "q8a") check.fail("q8a activations can't be copied");
  const want = dtype ?? (packed ? "f32" : x.dtype);
  if (packed && want !== "f32") check.fail(`weights are copied to f32 only, not ${want}`);
  const convertible = (type: DType) => (floats as readonly DType[]).includes(type);
  if (!packed && want !== x.dtype && !(convertible(want) && convertible(x.dtype))) {
    check.fail(`no conversion from ${x.dtype} to ${want}`);
  }
  if (packed && inputs[0]!.shape.length !== 2) check.fail("weights have 2 dims");
  return [{ dtype: want, shape: x.shape }];
};

const crossEntropy: Infer = (_inputs, _options, check) => {
  const x = check.rank(0, 2);
  check.f32(0);
  check.dtype(1, "i32");
  check.shape(1, [x.shape[0]]);
  return [{ dtype: "f32", shape: [x.shape[0]] }];
};

const argmax: Infer = (_inputs, _options, check) => {
  check.f32(0);
  const x = check.rank(0, 2);
  if (maxDim(x.shape[1]) === 0) check.fail("a row must have elements");
  return [{ dtype: "i32", shape: [x.shape[0]] }];
};

const topk: Infer = (_inputs, { count = 0 }, check) => {
  check.f32(0);
  const x = check.rank(0, 2);
  if (!Number.isInteger(count) || count < 1 || count > maxDim(x.shape[1])) check.fail(`k = ${count} is not in 1..n`);
  const shape = [x.shape[0], count];
  return [{ dtype: "f32", shape }, { dtype: "i32", shape }];
};

const embedding: Infer = (_inputs, _options, check) => {
  const ids = check.rank(0, 1);
  check.dtype(0, "i32");
  const table = check.rank(1, 2);
  if (table.dtype === "q8a") check.fail("table must hold weights");
  return [{ dtype: "f32", shape: [ids.shape[0], table.shape[1]] }];
};

const takeRows: Infer = (_inputs, { count = 0 }, check) => {
  check.f32(0);
  const x = check.rank(0, 2);
  if (!Number.isInteger(count) || count < 0 || count > maxDim(x.shape[0])) check.fail(`${count} rows are not in x`);
  return [{ dtype: "f32", shape: [count, x.shape[1]] }];
};

const rope: Infer = (inputs, _options, check) => {
  check.f32(0);
  const x = check.rank(0, 3);
  check.f32(1);
  const inverse = check.rank(1, 1);
  if (2 * maxDim(inverse.shape[0]) > maxDim(x.shape[2])) check.fail("inv_freq is longer than half of head_dim");
  if (inputs[2] !== undefined) {
    check.dtype(2, "i32");
    check.shape(2, [x.shape[0]]);
  }
  return [like(x)];
};

const wholeRows = (check: Checks, x: View): void => {
  if (maxDim(x.shape[1]) > 1 && x.strides[1] !== 1) check.fail("rows of x must be contiguous (copy it first)");
};

const quantizeRows: Infer = (_inputs, _options, check) => {
  check.f32(0);
  const x = check.rank(0, 2);
  if (maxDim(x.shape[1]) % 32 !== 0) check.fail("k must divide by 32");
  wholeRows(check, x);
  return [{ dtype: "q8a", shape: x.shape }];
};

const packWeight: Infer = (_inputs, options, check) => {
  const w = check.rank(0, 2);
  check.strided(0);
  const { dtype, bytes } = options.packed ?? check.fail("the backend gave no packed size");
  return [{ dtype, shape: w.shape, layout: "panel16", bytes }];
};

const linear: Infer = (inputs, _options, check) => {
  const x = check.rank(0, 2);
  check.dtype(0, "f32", "q8a");
  wholeRows(check, x);
  const w = check.rank(1, 2);
  if (w.layout !== "panel16") check.fail("w must be packed (packWeight)");
  if (!sameDim(x.shape[1], w.shape[1])) check.fail("x and w differ in k");
  if (inputs[2] !== undefined) rowVector(check, 2, w.shape[0]);
  return [{ dtype: "f32", shape: [x.shape[0], w.shape[0]] }];
};

const matmul: Infer = (_inputs, _options, check) => {
  const a = check.f32(0, 2);
  const b = check.f32(1, 2);
  const rank = a.shape.length;
  if (b.shape.length !== rank || !sameShape(a.shape.slice(0, -2), b.shape.slice(0, -2))) {
    check.fail("a and b need the same leading dims");
  }
  if (!sameDim(a.shape[rank - 1], b.shape[rank - 2])) check.fail("columns of a are not rows of b");
  return [{ dtype: "f32", shape: [...a.shape.slice(0, -1), b.shape[rank - 1]] }];
};

const pages = (check: Checks, index: number): void => {
  check.dtype(index, "i32");
  check.rank(index, 1);
};

const kvAppend: Infer = (_inputs, options, check) => {
  check.f32(0);
  const x = check.rank(0, 3);
  pages(check, 1);
  const cache = options.cache ?? check.fail("the cache is missing");
  const fits = cache.shape.length === 4 && sameDim(cache.shape[1], x.shape[1]) && sameDim(cache.shape[3], x.shape[2]);
  if (!fits) check.fail(`${describeView(cache, "cache")} does not hold kv_heads and head_dim of x`);
  if (cache.dtype !== "f32" && cache.dtype !== "f16") check.fail(`${describeView(cache, "cache")} must be f32 or f16`);
  return [{ dtype: cache.dtype, shape: cache.shape }];
};

const attention: Infer = (_inputs, _options, check) => {
  check.f32(0);
  const q = check.rank(0, 3);
  const k = check.rank(1, 4);
  check.dtype(1, "f32", "f16");
  check.dtype(2, k.dtype);
  check.shape(2, k.shape);
  pages(check, 3);
  if (!sameDim(k.shape[3], q.shape[2])) check.fail("q and the cache differ in head_dim");
  const kvHeads = maxDim(k.shape[1]);
  if (kvHeads === 0 || maxDim(q.shape[1]) % kvHeads !== 0) check.fail("heads of q are no multiple of kv_heads");
  return [like(q)];
};

const inferences = {
  copy,
  add: broadcast,
  mul: broadcast,
  mul_const: unary,
  silu: unary,
  gelu_tanh: unary,
  gelu_erf: unary,
  quick_gelu: unary,
  sigmoid: unary,
  relu: unary,
  relu2: unary,
  tanh: unary,
  softplus: unary,
  exp: unary,
  softcap: unary,
  swiglu: gated,
  geglu_tanh: gated,
  rmsnorm,
  rmsnorm_residual: rmsnormResidual,
  layernorm,
  l2norm: unary,
  softmax: unary,
  causal_softmax: (_inputs, _options, check) => [like(check.f32(0, 2))],
  log_softmax: unary,
  cross_entropy: crossEntropy,
  argmax,
  topk,
  embedding,
  take_rows: takeRows,
  rope,
  quantize_rows: quantizeRows,
  pack_weight: packWeight,
  linear,
  matmul,
  kv_append: kvAppend,
  attention,
} as const satisfies Record<OpName, Infer>;

/**
 * Types and shapes of the outputs of an op. Throws `invalid_argument` naming the op, the operand that is wrong, and all
 * operands with their types and shapes.
 */
export function inferOutputs(op: OpName, inputs: Inputs, options: ShapeOptions): OutputSpec[] {
  return inferences[op](inputs, options, new Checks(op, inputs));
}
