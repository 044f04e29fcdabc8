/**
 * Capture: runs a model's code once with symbolic token count and position, and gives a program that replays it.
 * @module
 */
import type { Backend } from "./backend.ts";
import { Graph } from "./capture/graph.ts";
import { removeDeadCode } from "./capture/passes/dead_code.ts";
import { fuse } from "./capture/passes/fuse.ts";
import { gatherLinears } from "./capture/passes/gather.ts";
import { useInPlace } from "./capture/passes/in_place.ts";
import { type PassReport, Program } from "./capture/program.ts";
import { graphTensor, viewOf } from "./capture/record.ts";
import type { DType } from "./dtype.ts";
import { MllmError, typeName } from "./errors.ts";
import { copy } from "./ops/elementwise.ts";
import type { Dim, Register, TokenDim } from "./scalar.ts";
import { Tensor } from "./tensor.ts";
import { tidy } from "./tidy.ts";
import { describeView } from "./view.ts";

/** Type and shape of an input of a program; "tokens" stands for the token count of a run and may only come first. */
export interface InputSpec {
  /** Type of the elements. */
  readonly dtype: DType;
  /** Lengths of the dims, slowest first. */
  readonly shape: readonly (number | "tokens")[];
}

/** A rewrite of the graph that keeps every bit of the outputs; returns how often it applied. */
export interface Pass {
  /** Its name in `Program.passes`. */
  readonly name: string;
  /** @internal */
  run(graph: Graph): number;
}

/** The passes of `capture`, in order; the memory plan always follows. */
export const defaultPasses: readonly Pass[] = [
  { name: "dead_code", run: removeDeadCode },
  { name: "fuse", run: fuse },
  { name: "gather", run: gatherLinears },
  { name: "in_place", run: useInPlace },
];

/** The inputs of a program and the bound that its memory plan holds for. */
export interface CaptureOptions<Names extends string = string> {
  /** The largest token count of a run, 1 or more; memory is planned for it. */
  readonly tokensMax: number;
  /** Inputs by name; each becomes `Program.inputs[name]`. */
  readonly inputs: Readonly<Record<Names, InputSpec>>;
}

/** The run-time values that captured code can use. */
export interface CaptureRegisters {
  /** The token count, as a dim of `reshape` and as an op parameter. */
  readonly tokens: TokenDim & Register;
  /** Position of the first token. */
  readonly position: Register;
  /** tokens - 1. */
  readonly last: Register;
  /** position + tokens. */
  readonly context: Register;
}

/** How `capture` treats the recorded graph. */
export interface CaptureSettings {
  /** Passes to run instead of `defaultPasses`; an empty list keeps the graph as recorded. */
  readonly passes?: readonly Pass[];
}

/**
 * Records `fn` and compiles it. `fn` gets a tensor per input and returns tensors by name: the outputs of the program.
 * Tensors made before (weights, caches) and constants made inside are used where they are, and kept alive by the program.
 *
 * Throws `invalid_argument` for a bad token count, an output that depends on no input or an op with wrong operands,
 * `unsupported` for an op or layout that the backend lacks, `out_of_memory` when its arena does not fit, and whatever
 * `fn` throws.
 */
export function capture<Names extends string>(
  backend: Backend,
  options: CaptureOptions<Names>,
  fn: (inputs: Record<Names, Tensor>, registers: CaptureRegisters) => Record<string, Tensor>,
  settings: CaptureSettings = {},
): Program {
  const { tokensMax } = options;
  if (!Number.isSafeInteger(tokensMax) || tokensMax < 1) {
    throw new MllmError("invalid_argument", `capture: tokensMax must be a positive integer, not ${tokensMax}`);
  }
  const tokens = { symbol: "tokens", max: tokensMax, register: "tokens" } as const;
  const graph = new Graph(backend, tokens);
  try {
    record(graph, options.inputs, fn);
    const report: PassReport[] = [{ name: "capture", changes: graph.nodes.length }];
    for (const pass of settings.passes ?? defaultPasses) report.push({ name: pass.name, changes: pass.run(graph) });
    return new Program(graph, report);
  } finally {
    graph.release();
  }
}

function record<Names extends string>(
  graph: Graph,
  specs: Readonly<Record<Names, InputSpec>>,
  fn: (inputs: Record<Names, Tensor>, registers: CaptureRegisters) => Record<string, Tensor>,
): void {
  try {
    tidy(() => {
      const inputs = makeInputs(graph, specs);
      const registers: CaptureRegisters = {
        tokens: graph.tokens as TokenDim & Register,
        position: { register: "position" },
        last: { register: "last" },
        context: { register: "context" },
      };
      for (const [name, tensor] of outputsOf(fn(inputs, registers))) markOutput(graph, name, tensor);
    });
  } finally {
    graph.sealed = true;
  }
}

/** The outputs by name. What is returned comes from programs that nobody type-checks, too. */
function outputsOf(returned: unknown): [string, Tensor][] {
  const refuse = (what: string): never => {
    throw new MllmError("invalid_argument", `capture: ${what}`, {
      next:
        "Return the outputs as an object of tensors, ({ x }) => ({ y: … }), from a function that is not asynchronous",
    });
  };
  if (returned instanceof Promise) refuse("the function returned a promise");
  if (returned instanceof Tensor) refuse("the function returned a tensor without a name");
  if (typeof returned !== "object" || returned === null) return refuse(`the function returned ${typeName(returned)}`);
  return Object.entries(returned).map(([name, output]) => {
    return output instanceof Tensor ? [name, output] : refuse(`output "${name}" is no tensor`);
  });
}

function makeInputs<Names extends string>(
  graph: Graph,
  specs: Readonly<Record<Names, InputSpec>>,
): Record<Names, Tensor> {
  const tensors = {} as Record<Names, Tensor>;
  for (const name of Object.keys(specs) as Names[]) {
    const { dtype, shape } = specs[name];
    const dims: Dim[] = shape.map((dim) => dim === "tokens" ? graph.tokens : dim);
    const tensor = graphTensor(graph, dtype, dims).named(name);
    if (tensor.storage.kind === "graph") tensor.storage.role = "input";
    graph.inputs.set(name, viewOf(tensor));
    tensors[name] = tensor;
  }
  return tensors;
}

/** Outputs lie alone and contiguous in memory of their own; what does not is copied there. */
function markOutput(graph: Graph, name: string, tensor: Tensor): void {
  tensor.assertLive(`capture: output "${name}"`);
  const { storage } = tensor;
  if (storage.kind === "graph" && storage.graph !== graph) {
    throw new MllmError("invalid_argument", `capture: output "${name}" belongs to another capture`);
  }
  if (storage.kind === "memory") {
    throw new MllmError("invalid_argument", `capture: output "${name}" (${describeView(tensor)}) depends on no input`);
  }
  const own = storage.role !== "input" && tensor.isContiguous;
  const out = own ? tensor : copy(tensor);
  if (out.storage.kind === "graph") out.storage.role = "output";
  graph.outputs.set(name, viewOf(out));
}

export {
  type PassReport,
  type ProfileEntry,
  Program,
  type ProgramCommand,
  type ProgramInput,
  type RunOptions,
} from "./capture/program.ts";
