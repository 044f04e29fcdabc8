/**
 * Replaces pairs of ops by one op that gives the same bits: add + rmsnorm → rmsnorm_residual, silu + mul → swiglu, softmax
 * + topk → softmax_topk, and a norm or gate + quantize_rows → the norm or gate that quantises on the way.
 * @module
 */
import type { OpName } from "../../native/abi.ts";
import { identical } from "../../ops/call.ts";
import { sameShape } from "../../scalar.ts";
import { isContiguous, type View } from "../../view.ts";
import { canPass, type Graph, type GraphBuffer, type GraphNode } from "../graph.ts";
import { type Usage, usageOf } from "../usage.ts";

/** A rule looks at a node and one of its earlier producers, and gives the node that does both. */
type Rule = (producer: GraphNode, node: GraphNode, usage: Map<GraphBuffer, Usage>) => GraphNode | undefined;

/** Fuses until nothing changes; returns how many pairs became one. */
export function fuse(graph: Graph): number {
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

/** Ops that can write an output as q8a, and which output. */
const quantizableOutputs: Partial<Record<OpName, number>> = {
  rmsnorm: 0,
  rmsnorm_residual: 1,
  swiglu: 0,
  geglu_tanh: 0,
};

function fuseQuantize(node: GraphNode, quantize: GraphNode, usage: Map<GraphBuffer, Usage>): GraphNode | undefined {
  const index = quantizableOutputs[node.op];
  if (index === undefined) return undefined;
  const made = node.outputs[index];
  if (!isGone(made, usage) || !identical(made, quantize.inputs[0]!)) return undefined;
  return { ...node, outputs: node.outputs.map((view, i) => i === index ? quantize.outputs[0] : view) };
}
