/**
 * Replaces ops by one op that gives the same bits: add + rmsnorm → rmsnorm_residual, silu + mul → swiglu, softmax + topk →
 * softmax_topk, rmsnorm + rope → rmsnorm_rope, a norm, gate or attention + quantize_rows → the one that quantises on the
 * way, and at last two linear of one q8a input + swiglu → linear_swiglu.
 * @module
 */
import type { OpName } from "../../native/abi.ts";
import { identical } from "../../ops/call.ts";
import { fitSwiglu } from "../../ops/linear.ts";
import { maxDim, sameShape } from "../../scalar.ts";
import { isContiguous, type View } from "../../view.ts";
import { canPass, type Graph, type GraphBuffer, type GraphNode } from "../graph.ts";
import { type Usage, usageOf } from "../usage.ts";

/** A rule looks at a node and one of its earlier producers, and gives the node that does both. */
type Rule = (producer: GraphNode, node: GraphNode, usage: Map<GraphBuffer, Usage>) => GraphNode | undefined;

/** Fuses until nothing changes; returns how many fusions there were. */
export function fuse(graph: Graph): number {
  return fusePairs(graph) + fuseGates(graph);
}

function fusePairs(graph: Graph): number {
  let fused = 0;
  let usage = usageOf(graph);
  for (let at = 0; at < graph.nodes.length; at++) {
    const found = findPair(graph, at, usage);
    if (found === undefined) continue;
    graph.nodes[at] = found.node;
    graph.nodes.splice(found.producer, 1);
    usage = usageOf(graph);
    at--;
    fused++;
  }
  return fused;
}

const rules: Partial<Record<OpName, Rule>> = {
  rmsnorm: fuseResidual,
  mul: fuseSwiglu,
  topk: fuseTopk,
  rope: fuseRope,
  quantize_rows: fuseQuantize,
};

function findPair(
  graph: Graph,
  at: number,
  usage: Map<GraphBuffer, Usage>,
): { node: GraphNode; producer: number } | undefined {
  const node = graph.nodes[at];
  const rule = rules[node.op];
  if (rule === undefined) return undefined;
  for (const view of node.inputs) {
    if (view?.storage.kind !== "graph") continue;
    const writers = usage.get(view.storage)?.writes ?? [];
    const producer = writers.length === 1 ? writers[0] : -1;
    if (producer < 0 || producer >= at) continue;
    if (!canPass(graph.nodes[producer], graph.nodes.slice(producer + 1, at))) continue;
    const made = rule(graph.nodes[producer], node, usage);
    if (made !== undefined) return { node: made, producer };
  }
  return undefined;
}

const dense = (view: View): boolean => isContiguous(view.shape, view.strides);

function fuseResidual(add: GraphNode, norm: GraphNode): GraphNode | undefined {
  const [a, b] = add.inputs as View[];
  const sum = add.outputs[0];
  if (add.op !== "add" || !sameShape(a.shape, b.shape) || !identical(sum, norm.inputs[0]!)) return undefined;
  if (![a, b, sum, norm.outputs[0]].every(dense) || norm.outputs[0].storage === sum.storage) return undefined;
  if (norm.inputs[1]!.storage === sum.storage) return undefined; // the fused op writes the sum while it reads the weight
  if (norm.outputs[0].storage === a.storage || norm.outputs[0].storage === b.storage) return undefined;
  return {
    op: "rmsnorm_residual",
    inputs: [a, b, norm.inputs[1]],
    outputs: [sum, norm.outputs[0]],
    ints: [],
    floats: norm.floats,
  };
}

/** Whether a result is a temporary that one node alone reads: after a fusion with that node it is gone. */
function isGone(view: View, usage: Map<GraphBuffer, Usage>): boolean {
  const { storage } = view;
  return storage.kind === "graph" && storage.role === "temporary" && usage.get(storage)!.reads.length === 1;
}

function fuseSwiglu(silu: GraphNode, mul: GraphNode, usage: Map<GraphBuffer, Usage>): GraphNode | undefined {
  const gate = silu.inputs[0]!;
  const activated = silu.outputs[0];
  if (silu.op !== "silu" || !isGone(activated, usage) || gate.storage === activated.storage) return undefined;
  const [a, b] = mul.inputs as View[];
  const up = identical(a, activated) ? b : identical(b, activated) ? a : undefined;
  if (up === undefined || up.storage === activated.storage || !sameShape(up.shape, gate.shape)) return undefined;
  // In place over one operand is fine only when that operand is not read again for another element.
  const out = mul.outputs[0];
  if (out.storage === gate.storage && !identical(out, gate)) return undefined;
  return { op: "swiglu", inputs: [gate, up], outputs: [out], ints: [], floats: [] };
}

function fuseTopk(softmax: GraphNode, topk: GraphNode, usage: Map<GraphBuffer, Usage>): GraphNode | undefined {
  const [probabilities] = softmax.outputs;
  if (softmax.op !== "softmax" || !isGone(probabilities, usage) || !identical(probabilities, topk.inputs[0]!)) {
    return undefined;
  }
  return { op: "softmax_topk", inputs: softmax.inputs, outputs: topk.outputs, ints: [0], floats: softmax.floats };
}

function fuseRope(norm: GraphNode, rope: GraphNode, usage: Map<GraphBuffer, Usage>): GraphNode | undefined {
  const [normed] = norm.outputs;
  const [x, invFreq, positions] = rope.inputs;
  if (norm.op !== "rmsnorm" || !isGone(normed, usage) || !identical(normed, x!)) return undefined;
  const [heads, weight] = norm.inputs as View[];
  const [out] = rope.outputs;
  if (invFreq!.storage === normed.storage || positions?.storage === normed.storage) return undefined;
  if (out.storage === weight.storage || (out.storage === heads.storage && !identical(out, heads))) return undefined;
  return {
    op: "rmsnorm_rope",
    inputs: [heads, weight, invFreq, positions],
    outputs: [out],
    ints: rope.ints,
    floats: [...norm.floats, ...rope.floats],
  };
}

/** Ops that can write an output as q8a, and which output. */
const quantizableOutputs: Partial<Record<OpName, number>> = {
  rmsnorm: 0,
  rmsnorm_residual: 1,
  swiglu: 0,
  geglu_tanh: 0,
  attention: 0,
};

function fuseQuantize(node: GraphNode, quantize: GraphNode, usage: Map<GraphBuffer, Usage>): GraphNode | undefined {
  const index = quantizableOutputs[node.op];
  if (index === undefined) return undefined;
  const made = node.outputs[index];
  const rows = quantize.inputs[0]!;
  const isWhole = node.op === "attention" ? isRowsOf(rows, made) : identical(rows, made);
  if (!isGone(made, usage) || !isWhole) return undefined;
  return { ...node, outputs: node.outputs.map((view, i) => i === index ? quantize.outputs[0] : view) };
}

/** Whether rows [tokens, n] are all heads of attention's output [tokens, heads, headDim], in whole blocks of each head. */
function isRowsOf(rows: View, made: View): boolean {
  const [tokens, heads, headDim] = made.shape;
  const same = rows.storage === made.storage && rows.byteOffset === made.byteOffset && dense(rows) && dense(made);
  return same && sameShape(rows.shape, [tokens, maxDim(heads) * maxDim(headDim)]) && maxDim(headDim) % 32 === 0;
}

/** Brings the products of each gate into it; after the pairs, for a gate is better quantised before. */
function fuseGates(graph: Graph): number {
  const { nodes } = graph;
  let fused = 0;
  let usage = usageOf(graph);
  for (let at = 0; at < nodes.length; at++) {
    const products = productsOf(nodes, at, usage);
    if (products === undefined) continue;
    const [gate, up] = products.map((index) => nodes[index]);
    nodes[at] = {
      ...nodes[at],
      op: "linear_swiglu",
      inputs: [gate.inputs[0], gate.inputs[1], up.inputs[1]],
    };
    for (const index of products.sort((a, b) => b - a)) nodes.splice(index, 1);
    usage = usageOf(graph);
    at -= 2;
    fused++;
  }
  return fused;
}

/** The two `linear` of a gate, where nobody else reads them and they can move to it. */
function productsOf(nodes: readonly GraphNode[], at: number, usage: Map<GraphBuffer, Usage>): number[] | undefined {
  const { op, inputs } = nodes[at];
  if (op !== "swiglu") return undefined;
  const products = inputs.map((view) => {
    if (view?.storage.kind !== "graph" || !isGone(view, usage)) return -1;
    const { writes } = usage.get(view.storage)!;
    const node = nodes[writes[0]];
    const isProduct = writes.length === 1 && node.op === "linear" && identical(node.outputs[0], view);
    return isProduct && canPass(node, nodes.slice(writes[0] + 1, at)) ? writes[0] : -1;
  });
  if (products.includes(-1) || products[0] === products[1]) return undefined;
  const [gate, up] = products.map((index) => nodes[index].inputs);
  const fits = gate[0]!.dtype === "q8a" && identical(gate[0]!, up[0]!) && fitSwiglu(gate[1]!, up[1]!);
  return fits && gate[2] === undefined && up[2] === undefined ? products : undefined;
}
