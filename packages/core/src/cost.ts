/**
 * What an op must at least do, from its shapes alone: the bytes it has to touch and its arithmetic. A roofline divides
 * these by what the machine can do; a profile divides them by the time that was taken.
 *
 * Every operand counts once, however often a kernel comes back to it: a weight that is read again for the next rows, or
 * scores that attention never stores, are the kernel's affair.
 * @module
 */
import { byteLength } from "./dtype.ts";
import type { OpName } from "./native/abi.ts";
import { maxDim, type Scalar } from "./scalar.ts";
import type { View } from "./view.ts";

/** Bytes and operations of one or more executions of an op. */
export interface OpCost {
  /** Weights as packed, and constants such as norms' weights: they come from memory each time. */
  readonly weightBytes: number;
  /** Keys and values that are read or written, as stored in the cache. */
  readonly cacheBytes: number;
  /** Activations that are read or written; a processor cache may hold them. */
  readonly activationBytes: number;
  /** Arithmetic operations, a multiply-add being two; of a function such as exp, one. */
  readonly operations: number;
}

/** An op record as far as it decides the cost. */
export interface CostedOp {
  /** Row of the op table. */
  readonly op: OpName;
  /** Operands; absent ones are undefined. */
  readonly inputs: readonly (View | undefined)[];
  /** Results. */
  readonly outputs: readonly View[];
  /** Integer parameters, literal or registers. */
  readonly ints: readonly Scalar[];
}

/** The registers that a cost depends on. */
export interface CostedRun {
  /** Tokens of the run. */
  readonly tokens: number;
  /** Position of the first of them. */
  readonly position: number;
}

/** No cost at all: where sums start. */
export const noCost: OpCost = { weightBytes: 0, cacheBytes: 0, activationBytes: 0, operations: 0 };

/** The cost of both. */
export function addCosts(a: OpCost, b: OpCost): OpCost {
  return {
    weightBytes: a.weightBytes + b.weightBytes,
    cacheBytes: a.cacheBytes + b.cacheBytes,
    activationBytes: a.activationBytes + b.activationBytes,
    operations: a.operations + b.operations,
  };
}

/** All bytes of a cost. */
export function totalBytes({ weightBytes, cacheBytes, activationBytes }: OpCost): number {
  return weightBytes + cacheBytes + activationBytes;
}

type Bytes = Omit<OpCost, "operations">;

/** How the cost of an op is found; what is absent: no operation, every operand once. */
interface Rule {
  /** Operations in all, or per element of output 0. */
  readonly operations?: number | ((node: CostedOp, run: CostedRun) => number);
  /** Indices of the inputs that are weights or constants. */
  readonly weights?: readonly number[];
  /** Bytes, for ops that read or write a part of an operand. */
  readonly bytes?: (node: CostedOp, run: CostedRun) => Bytes;
}

const shapeOf = (view: View, { tokens }: CostedRun): number[] =>
  view.shape.map((dim) => typeof dim === "number" ? dim : Math.min(tokens, dim.max));

const product = (dims: readonly number[]): number => dims.reduce((total, dim) => total * dim, 1);

/** Bytes of a view's own elements; packed weights are as large as their storage. */
function bytesOf(view: View, run: CostedRun): number {
  return view.layout !== "strided" ? view.storage.bytes - view.byteOffset : byteLength(view.dtype, shapeOf(view, run));
}

function valueOf(scalar: Scalar, { tokens, position }: CostedRun): number {
  if (typeof scalar === "number") return scalar;
  return { tokens, position, last: tokens - 1, context: position + tokens }[scalar.register];
}

const elements = (view: View, run: CostedRun): number => product(shapeOf(view, run));

const perInput = (each: number) => ({ inputs }: CostedOp, run: CostedRun): number => each * elements(inputs[0]!, run);

function linearOperations({ inputs }: CostedOp, run: CostedRun): number {
  const [rows, k] = shapeOf(inputs[0]!, run);
  const n = maxDim(inputs[1]!.shape[0]);
  return rows * n * (2 * k + (inputs[2] === undefined ? 0 : 1));
}

function linearSwigluOperations({ inputs }: CostedOp, run: CostedRun): number {
  const [rows, k] = shapeOf(inputs[0]!, run);
  return rows * maxDim(inputs[1]!.shape[0]) * (4 * k + 5);
}

function matmulOperations({ inputs, outputs }: CostedOp, run: CostedRun): number {
  return 2 * elements(outputs[0], run) * shapeOf(inputs[0]!, run).at(-1)!;
}

function embeddingBytes({ inputs, outputs }: CostedOp, run: CostedRun): Bytes {
  const [ids, table] = inputs as View[];
  return {
    weightBytes: elements(ids, run) * bytesOf(table, run) / maxDim(table.shape[0]),
    cacheBytes: 0,
    activationBytes: bytesOf(ids, run) + bytesOf(outputs[0], run),
  };
}

function takeRowsBytes({ outputs }: CostedOp, run: CostedRun): Bytes {
  return { weightBytes: 0, cacheBytes: 0, activationBytes: 2 * bytesOf(outputs[0], run) };
}

function kvAppendBytes({ inputs, outputs }: CostedOp, run: CostedRun): Bytes {
  const x = inputs[0]!;
  const cacheBytes = byteLength(outputs[0].dtype, shapeOf(x, run));
  return { weightBytes: 0, cacheBytes, activationBytes: bytesOf(x, run) };
}

const windowOf = ({ ints }: CostedOp, run: CostedRun): number => valueOf(ints[1], run) || Infinity;

/** Keys and values count once, however many queries see them. */
function attentionBytes(node: CostedOp, run: CostedRun): Bytes {
  const [q, k, v] = node.inputs as View[];
  const [queries, , headDim] = shapeOf(q, run);
  const position = valueOf(node.ints[0], run);
  const keys = position + queries - Math.max(0, position + 1 - windowOf(node, run));
  return {
    weightBytes: 0,
    cacheBytes: [k, v].reduce((sum, { dtype }) => sum + byteLength(dtype, [keys, maxDim(k.shape[1]), headDim]), 0),
    activationBytes: bytesOf(q, run) + bytesOf(node.outputs[0], run),
  };
}

/** q k^T and the sum over v, for the keys that each query sees. */
function attentionOperations(node: CostedOp, run: CostedRun): number {
  const [queries, heads, headDim] = shapeOf(node.inputs[0]!, run);
  const position = valueOf(node.ints[0], run);
  const window = windowOf(node, run);
  const growing = Math.min(queries, Math.max(0, window - position)); // these see every key before them
  const full = queries - growing; // the others see a whole window
  const pairs = growing * position + growing * (growing + 1) / 2 + (full > 0 ? full * window : 0);
  return 4 * heads * headDim * pairs;
}

/** Operations per element follow the formulas of the op table. */
const rules: Readonly<Record<OpName, Rule>> = {
  copy: {},
  add: { operations: 1 },
  mul: { operations: 1 },
  mul_const: { operations: 1 },
  silu: { operations: 4 },
  gelu_tanh: { operations: 9 },
  gelu_erf: { operations: 5 },
  quick_gelu: { operations: 5 },
  sigmoid: { operations: 3 },
  relu: { operations: 1 },
  relu2: { operations: 2 },
  tanh: { operations: 1 },
  softplus: { operations: 3 },
  exp: { operations: 1 },
  softcap: { operations: 3 },
  swiglu: { operations: 5 },
  geglu_tanh: { operations: 10 },
  rmsnorm: { operations: 4, weights: [1] },
  rmsnorm_residual: { operations: 5, weights: [2] },
  layernorm: { operations: 8, weights: [1, 2] },
  l2norm: { operations: 3 },
  softmax: { operations: 5 },
  causal_softmax: { operations: 5 },
  log_softmax: { operations: 4 },
  cross_entropy: { operations: perInput(4) },
  argmax: { operations: perInput(1) },
  topk: { operations: perInput(1) },
  softmax_topk: { operations: perInput(6) },
  embedding: { bytes: embeddingBytes },
  take_rows: { bytes: takeRowsBytes },
  rope: { operations: 3, weights: [1] },
  rmsnorm_rope: { operations: 7, weights: [1, 2] },
  quantize_rows: { operations: 3 },
  pack_weight: { weights: [0] },
  linear: { operations: linearOperations, weights: [1, 2] },
  linear_swiglu: { operations: linearSwigluOperations, weights: [1, 2] },
  matmul: { operations: matmulOperations },
  kv_append: { bytes: kvAppendBytes },
  attention: { operations: attentionOperations, bytes: attentionBytes },
};

function operandBytes({ inputs, outputs }: CostedOp, weights: readonly number[], run: CostedRun): Bytes {
  let [weightBytes, activationBytes] = [0, 0];
  inputs.forEach((view, i) => {
    if (view === undefined) return;
    if (weights.includes(i)) weightBytes += bytesOf(view, run);
    else activationBytes += bytesOf(view, run);
  });
  for (const view of outputs) activationBytes += bytesOf(view, run);
  return { weightBytes, cacheBytes: 0, activationBytes };
}

/** The least that one execution of an op touches and computes, in a run of these tokens at this position. */
export function opCost(node: CostedOp, run: CostedRun): OpCost {
  const { operations = 0, weights = [], bytes } = rules[node.op];
  return {
    ...(bytes === undefined ? operandBytes(node, weights, run) : bytes(node, run)),
    operations: typeof operations === "number" ? operations * elements(node.outputs[0], run) : operations(node, run),
  };
}
