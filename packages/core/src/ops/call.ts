/**
 * The one way an op runs: infer, then execute at once or record.
 * @module
 */
import type { Backend } from "../backend.ts";
import type { Graph } from "../capture/graph.ts";
import { recordOp } from "../capture/record.ts";
import { byteLength } from "../dtype.ts";
import { MllmError, typeName } from "../errors.ts";
import type { KernelQuery } from "../kernel_selector.ts";
import { type OpName, opTable } from "../native/abi.ts";
import { maxDim, maxShape, sameShape, type Scalar } from "../scalar.ts";
import { describeCall, inferOutputs, type OutputSpec, type ShapeOptions } from "../shape.ts";
import { MemoryStorage } from "../storage.ts";
import { Tensor } from "../tensor.ts";
import { contiguousStrides, describeView, elementCount, extentBytes, type View } from "../view.ts";

/** An optional place for the result instead of new memory. */
export interface OutOption {
  /**
   * Written and returned. It must have the type and shape of the result, and may be an input itself where the op table
   * allows it, but not overlap one otherwise, nor lie in a mapped file (`invalid_argument`).
   */
  readonly out?: Tensor;
}

/** A result that goes into `linear` with activations "i8" can be written quantised at once. */
export interface QuantizedOption extends OutOption {
  /**
   * Gives q8a [rows, n] instead of f32: the bits of `quantizeRows` of the f32 result. x must be [rows, n], n a multiple
   * of 32.
   */
  readonly quantized?: boolean;
}

type Inputs = readonly (Tensor | undefined)[];
const none: readonly never[] = [];

/** Runs or records an op and returns its outputs. `outs` gives memory for some of them. */
export function callOp(
  op: OpName,
  inputs: Inputs,
  ints: readonly Scalar[] = none,
  floats: readonly number[] = none,
  options: ShapeOptions = {},
  outs: readonly (Tensor | undefined)[] = none,
): Tensor[] {
  const backend = checkInputs(op, inputs, outs);
  const specs = inferOutputs(op, inputs, options);
  for (let i = 0; i < outs.length; i++) {
    const out = outs[i];
    if (out !== undefined) checkOut(op, inputs, out, specs[i], i);
  }
  const graph = graphOf(inputs, outs);
  if (graph !== undefined) return recordOp(graph, op, inputs, ints, floats, specs, outs);
  checkLiteral(op, inputs, ints);
  return runNow(backend, op, inputs, ints as readonly number[], floats, specs, outs);
}

/** The first output of `callOp`. */
export function callOne(
  op: OpName,
  inputs: Inputs,
  ints?: readonly Scalar[],
  floats?: readonly number[],
  options?: ShapeOptions,
  out?: Tensor,
): Tensor {
  return callOp(op, inputs, ints, floats, options, out === undefined ? none : [out])[0];
}

/** What the selector is asked about an op; `linear_swiglu` is two products like any `linear`. */
export function kernelQuery(name: OpName, inputs: readonly (View | undefined)[]): KernelQuery {
  const op = name === "linear_swiglu" ? "linear" : name;
  const first = inputs[0]!;
  const weighty = op === "linear" || op === "embedding" || op === "attention";
  const deciding = weighty ? inputs[1]! : first;
  const count = elementCount(first.shape);
  const rows = first.shape.length === 0 ? 1 : maxDim(first.shape[0]);
  const { dtype } = deciding;
  const phase = rows === 1 ? "decode" : "prefill";
  if (op !== "linear" && op !== "embedding") {
    return { op, dtype, x: first.dtype, phase, elements: count, rows, n: count / rows };
  }
  const [n, k] = maxShape(deciding.shape);
  return { op, dtype, x: first.dtype, phase, elements: op === "linear" ? rows * n * k : rows * k, rows, n, k };
}

function runNow(
  backend: Backend,
  op: OpName,
  inputs: Inputs,
  ints: readonly number[],
  floats: readonly number[],
  specs: readonly OutputSpec[],
  outs: readonly (Tensor | undefined)[],
): Tensor[] {
  const outputs: Tensor[] = [];
  for (let i = 0; i < specs.length; i++) outputs.push(outs[i] ?? allocate(backend, specs[i]));
  try {
    const { variant, threads } = backend.selector.choose(kernelQuery(op, inputs));
    backend.writer.write(0, { op, variant, threads, inputs, outputs, ints, floats });
    for (const { storage } of outputs) storage.version++; // before: a kernel that fails half-way has written, too
    backend.submitOne(() => describeCall(op, inputs));
  } catch (error) {
    for (let i = 0; i < outputs.length; i++) if (outs[i] === undefined) outputs[i].free();
    throw error;
  }
  return outputs;
}

/** Memory for an output at its largest size; contents undefined. Throws `out_of_memory`. */
export function allocate(backend: Backend, spec: OutputSpec): Tensor {
  const shape = maxShape(spec.shape);
  const storage = MemoryStorage.allocate(backend, spec.bytes ?? byteLength(spec.dtype, shape));
  return new Tensor(storage, 0, spec.dtype, shape, contiguousStrides(shape), spec.layout ?? "strided", backend);
}

function checkInputs(op: OpName, inputs: Inputs, outs: readonly (Tensor | undefined)[]): Backend {
  let backend: Backend | undefined;
  for (const list of [inputs, outs]) {
    for (let i = 0; i < list.length; i++) {
      const tensor = list[i];
      if (tensor === undefined) continue;
      if (tensor?.isFreed !== false) refuse(op, tensor, list === inputs ? opTable[op].inputs[i].name : "out");
      backend ??= tensor.backend;
      if (tensor.backend !== backend) {
        throw new MllmError(
          "invalid_argument",
          `${describeCall(op, inputs)}: the tensors belong to different backends`,
        );
      }
    }
  }
  if (backend === undefined) throw new MllmError("invalid_argument", `${op} needs a tensor`);
  return backend;
}

function refuse(op: OpName, operand: unknown, role: string): void {
  if (operand instanceof Tensor) operand.assertLive(op, role);
  else throw new MllmError("invalid_argument", `${op}: ${role} must be a tensor, not ${typeName(operand)}`);
}

function graphOf(inputs: Inputs, outs: readonly (Tensor | undefined)[]): Graph | undefined {
  for (const tensor of inputs) if (tensor?.storage.kind === "graph") return tensor.storage.graph;
  for (const tensor of outs) if (tensor?.storage.kind === "graph") return tensor.storage.graph;
  return undefined;
}

function checkLiteral(op: OpName, inputs: Inputs, ints: readonly Scalar[]): void {
  for (const value of ints) {
    if (typeof value === "number") continue;
    throw new MllmError(
      "invalid_argument",
      `${describeCall(op, inputs)}: the register "${value.register}" has a value only inside capture`,
    );
  }
}

function checkOut(op: OpName, inputs: Inputs, out: Tensor, spec: OutputSpec, index: number): void {
  const fail = (problem: string): never => {
    throw new MllmError("invalid_argument", `${describeCall(op, inputs)}: out ${describeView(out)} ${problem}`);
  };
  if (out.dtype !== spec.dtype || !sameShape(out.shape, spec.shape) || out.layout !== (spec.layout ?? "strided")) {
    fail(`is not ${describeView({ ...spec, layout: spec.layout ?? "strided" })}`);
  }
  if (out.storage.kind === "memory" && out.storage.isReadOnly) fail("is read-only: its memory is a mapped file's");
  for (let i = 0; i < inputs.length; i++) {
    const input = inputs[i];
    if (input === undefined || input.storage !== out.storage || !overlap(input, out)) continue;
    const allowed = index === 0 && (opTable[op].inPlace as readonly number[]).includes(i) && identical(input, out);
    if (!allowed) fail(`overlaps ${opTable[op].inputs[i].name}, which this op can't do in place`);
  }
}

function overlap(a: View, b: View): boolean {
  return a.byteOffset < b.byteOffset + extentBytes(b) && b.byteOffset < a.byteOffset + extentBytes(a);
}

/** Whether two views are the same elements in the same order. */
export function identical(a: View, b: View): boolean {
  return a.storage === b.storage && a.byteOffset === b.byteOffset && a.dtype === b.dtype && a.layout === b.layout &&
    sameShape(a.shape, b.shape) && a.strides.every((stride, i) => stride === b.strides[i] || a.shape[i] === 1);
}
