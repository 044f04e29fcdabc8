/**
 * Recording of one op into a graph.
 * @module
 */
import { CommandWriter } from "../command.ts";
import { byteLength } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import type { OpName } from "../native/abi.ts";
import { type Dim, maxShape, type Scalar } from "../scalar.ts";
import { describeCall, type OutputSpec } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import { contiguousStrides, type View } from "../view.ts";
import type { DType } from "../dtype.ts";
import type { Graph, GraphNode } from "./graph.ts";

const probe = new CommandWriter(1);

/** A tensor that stands for a new buffer of the graph. */
export function graphTensor(graph: Graph, dtype: DType, shape: readonly Dim[]): Tensor {
  const strides = contiguousStrides(shape);
  const buffer = graph.buffer(byteLength(dtype, maxShape(shape)));
  return new Tensor(buffer, 0, dtype, shape, strides, "strided", graph.backend);
}

/** What passes and programs keep of a tensor: the view without its lifetime. */
export function viewOf(tensor: View): View {
  const { storage, byteOffset, dtype, shape, strides, layout, name } = tensor;
  return { storage, byteOffset, dtype, shape, strides, layout, name };
}

/**
 * Appends an op to the graph. Throws `unsupported` when the backend lacks it for these types and shapes, and
 * `invalid_argument` when the capture is over or tensors of two captures meet.
 */
export function recordOp(
  graph: Graph,
  op: OpName,
  inputs: readonly (Tensor | undefined)[],
  ints: readonly Scalar[],
  floats: readonly number[],
  specs: readonly OutputSpec[],
  outs: readonly (Tensor | undefined)[],
): Tensor[] {
  if (graph.sealed) {
    throw new MllmError("invalid_argument", `${describeCall(op, inputs)}: the capture these tensors belong to is over`);
  }
  for (const tensor of [...inputs, ...outs]) {
    if (tensor?.storage.kind === "graph" && tensor.storage.graph !== graph) {
      throw new MllmError("invalid_argument", `${describeCall(op, inputs)}: the tensors belong to different captures`);
    }
  }
  const outputs = specs.map((spec, i) => outs[i] ?? makeOutput(graph, op, inputs, spec));
  const node: GraphNode = {
    op,
    inputs: inputs.map((tensor) => tensor && viewOf(tensor)),
    outputs: outputs.map(viewOf),
    ints: ints.slice(),
    floats: floats.slice(),
  };
  checkSupported(graph, node);
  graph.push(node);
  return outputs;
}

function makeOutput(graph: Graph, op: OpName, inputs: readonly (Tensor | undefined)[], spec: OutputSpec): Tensor {
  if (spec.layout === "panel16") {
    throw new MllmError("unsupported", `${describeCall(op, inputs)}: weights are packed before a capture, not in it`);
  }
  return graphTensor(graph, spec.dtype, spec.shape);
}

function checkSupported(graph: Graph, node: GraphNode): void {
  probe.write(0, { ...node, variant: 0, threads: 0 }, () => ({ space: "arena", offset: 0 }));
  const reason = graph.backend.unsupportedReason(probe.bytes);
  if (reason === undefined) return;
  const { plugin, device } = graph.backend;
  throw new MllmError(
    "unsupported",
    `${describeCall(node.op, node.inputs)}: backend ${plugin.name}:${device.level} lacks it`,
    {
      next: reason,
    },
  );
}
