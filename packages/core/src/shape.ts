/**
 * What every op accepts and what it gives: the forms of the op table, read here for shapes and for messages that name
 * the caller's tensors, and the rules of single ops that a table can't say. The native boundary (native/runtime/
 * check.zig, rules.zig) reads the same table and has the last word.
 * @module
 */
import { type DType, dtypes } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import { type OpName, opTable } from "./native/abi.ts";
import { type Dim, maxDim, sameDim } from "./scalar.ts";
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
  /** Norms, `swiglu`, `geglu_tanh`, `attention`: q8a rows instead of f32. */
  readonly quantized?: boolean;
  /** `pack_weight`: what the backend said. */
  readonly packed?: { readonly bytes: number; readonly dtype: DType };
  /** `kv_append`: the cache that is written. */
  readonly cache?: View;
}

type Inputs = readonly (View | undefined)[];

/** An input or output of the op table; native/ops.zig says what the fields mean. */
interface Operand {
  readonly name: string;
  readonly form: string;
  readonly optional: boolean;
  readonly dtypes: readonly string[];
  readonly dims: readonly string[];
  readonly leading: boolean;
  readonly free: boolean;
  readonly order: "any" | "rows" | "dense";
}

const table: Readonly<Record<OpName, { readonly inputs: readonly Operand[]; readonly outputs: readonly Operand[] }>> =
  opTable;

/** `op(x: f32 [2, 3], weight "norm": f32 [3])` for messages. */
export function describeCall(op: OpName, inputs: Inputs): string {
  const parts: string[] = [];
  inputs.forEach((view, i) => view && parts.push(describeView(view, table[op].inputs[i]?.name)));
  return `${op}(${parts.join(", ")})`;
}

const floats: readonly string[] = ["f32", "f16", "bf16"] satisfies DType[];

/** Classes of the op table by layout. */
const layoutClasses = { panel16: "packed", kv_keys: "keys", kv_values: "values" } as const;

function accepts({ dtypes: classes }: Operand, { dtype, layout }: View): boolean {
  if (layout !== "strided") return classes.includes(layoutClasses[layout]);
  const { blockElements } = dtypes[dtype];
  const isFloat = floats.includes(dtype);
  return classes.some((name) =>
    name === dtype || (name === "float" && isFloat) || (name === "any" && blockElements > 0) ||
    (name === "weights" && (isFloat || blockElements > 1))
  );
}

/** The operands of one call against their forms. */
class Call {
  /** What the names of dims stand for, and the operand that said so first. */
  readonly #dims: Record<string, { readonly dim: Dim; readonly role: string } | undefined> = {};
  #leading: { readonly dims: readonly Dim[]; readonly role: string } | undefined;

  constructor(readonly op: OpName, readonly inputs: Inputs) {
    table[op].inputs.forEach((operand, i) => {
      const view = inputs[i];
      if (view !== undefined) this.match(operand, view);
      else if (!operand.optional) this.fail(`${operand.name} is missing`);
    });
  }

  /** Throws `invalid_argument` naming the op, the problem and every operand. */
  fail(problem: string): never {
    throw new MllmError("invalid_argument", `${describeCall(this.op, this.inputs)}: ${problem}`);
  }

  /** The view of an input that is there. */
  input(index: number): View {
    return this.inputs[index]!;
  }

  /** Gives a name of a dim its length. */
  bind(name: string, dim: Dim): void {
    this.#dims[name] = { dim, role: name };
  }

  /** Checks dtype, order and dims of an operand; the first to name a dim decides its length. */
  match(operand: Operand, view: View): void {
    const { name: role, form, dims } = operand;
    const { shape } = view;
    if (!accepts(operand, view)) {
      this.fail(`${role} must be ${form}${operand.dtypes.includes("packed") ? " (packWeight packs)" : ""}`);
    }
    if (shape.length === 0) this.fail(`${role} must have dims`);
    if (shape.some((dim) => dim === 0)) this.fail(`${role} must not be empty`);
    if (view.layout === "strided") this.#order(operand, view);
    if (operand.free) return;
    const extra = shape.length - dims.length;
    if (operand.leading ? extra < 0 : extra !== 0) this.fail(`${role} must be ${form}`);
    if (operand.leading) {
      const own = shape.slice(0, extra);
      const first = this.#leading ??= { dims: own, role };
      if (own.length !== first.dims.length || !own.every((dim, i) => sameDim(dim, first.dims[i]))) {
        this.fail(`${role} must have the ${dims.length === 0 ? "shape" : "leading dims"} of ${first.role}`);
      }
    }
    for (let i = 0; i < dims.length; i++) {
      const dim = shape[extra + i];
      const first = this.#dims[dims[i]] ??= { dim, role };
      if (sameDim(dim, first.dim)) continue;
      this.fail(`${role} must be ${form}, and ${dims[i]} is ${maxDim(first.dim)} in ${first.role}`);
    }
  }

  #order({ name, order }: Operand, { shape, strides }: View): void {
    const last = shape.length - 1;
    if (order === "rows" && shape[last] !== 1 && strides[last] !== 1) {
      this.fail(`rows of ${name} must be contiguous (copy it first)`);
    }
    if (order === "dense" && !isContiguous(shape, strides)) this.fail(`${name} must be contiguous (copy it first)`);
  }

  /** The outputs as the table words them; of several types the first, or q8a where it is wanted and possible. */
  outputs({ quantized = false }: ShapeOptions): OutputSpec[] {
    return table[this.op].outputs.map(({ dtypes: types, dims, leading }) => {
      const shape = [...(leading ? this.#leading!.dims : []), ...dims.map((name) => this.#dims[name]!.dim)];
      if (!quantized || !types.includes("q8a")) return { dtype: types[0] as DType, shape };
      if (shape.length !== 2 || maxDim(shape[1]) % 32 !== 0) {
        this.fail("quantised rows are [rows, n], and n divides by 32");
      }
      return { dtype: "q8a", shape };
    });
  }
}

type Rule = (call: Call, options: ShapeOptions) => OutputSpec[] | void;

const copy: Rule = (call, { dtype }) => {
  const x = call.input(0);
  const coded = x.layout !== "strided" || dtypes[x.dtype].quantized;
  const want = dtype ?? (coded ? "f32" : x.dtype);
  if (coded && want !== "f32") call.fail(`${x.dtype} is copied to f32 only, not ${want}`);
  if (!coded && want !== x.dtype && !(floats.includes(want) && floats.includes(x.dtype))) {
    call.fail(`no conversion from ${x.dtype} to ${want}`);
  }
  return [{ dtype: want, shape: x.shape }];
};

const broadcast: Rule = (call) => {
  const [a, b] = [call.input(0), call.input(1)];
  const skip = a.shape.length - b.shape.length;
  if (skip < 0 || !b.shape.every((dim, i) => sameDim(dim, a.shape[skip + i]))) {
    call.fail("b must have the shape of a or of its trailing dims");
  }
};

const counted = (name: string, axis: number, least: number): Rule => (call, { count = 0 }) => {
  const most = maxDim(call.input(0).shape[axis]);
  if (!Number.isInteger(count) || count < least || count > most) {
    call.fail(`${name} = ${count} is not in ${least}..${most}`);
  }
  call.bind(name, count);
};

/** `at` is the input inv_freq. */
function pairs(call: Call, at: number): void {
  if (2 * maxDim(call.input(at).shape[0]) > maxDim(call.input(0).shape[2])) {
    call.fail("inv_freq is longer than half of head_dim");
  }
}

const packWeight: Rule = (call, { packed }) => {
  const { dtype, bytes } = packed ?? call.fail("the backend gave no packed size");
  return [{ dtype, shape: call.input(0).shape, layout: "panel16", bytes }];
};

const kvAppend: Rule = (call, { cache }) => {
  if (cache === undefined) return call.fail("the cache is missing");
  call.match(table.kv_append.outputs[0], cache);
  return [{ dtype: cache.dtype, shape: cache.shape, layout: cache.layout }];
};

/** What the forms can't say. A rule gives the outputs where they follow from options. */
const rules: Partial<Record<OpName, Rule>> = {
  copy,
  add: broadcast,
  mul: broadcast,
  topk: counted("k", 1, 1),
  softmax_topk: counted("k", 1, 1),
  take_rows: counted("count", 0, 1),
  rope: (call) => pairs(call, 1),
  rmsnorm_rope: (call) => pairs(call, 2),
  quantize_rows(call) {
    if (maxDim(call.input(0).shape[1]) % 32 !== 0) call.fail("k must divide by 32");
  },
  linear_swiglu(call) {
    const [gate, up] = [call.input(1), call.input(2)];
    if (!dtypes[gate.dtype].quantized) call.fail("gate must be quantised weights");
    if (gate.dtype !== up.dtype) call.fail("up must have the type of gate");
    if (maxDim(gate.shape[0]) % 32 !== 0) call.fail("n must divide by 32");
  },
  pack_weight: packWeight,
  kv_append: kvAppend,
  attention(call, { quantized = false }) {
    const [q, k] = [call.input(0), call.input(1)];
    const [heads, headDim] = q.shape.slice(1).map(maxDim);
    if (heads % maxDim(k.shape[1]) !== 0) call.fail("heads of q are no multiple of kv_heads");
    if (!quantized) return [{ dtype: "f32", shape: q.shape }];
    if (headDim % 32 !== 0) call.fail("quantised rows need a head_dim that divides by 32");
    return [{ dtype: "q8a", shape: [q.shape[0], heads * headDim] }];
  },
};

/**
 * Types and shapes of the outputs of an op. Throws `invalid_argument` naming the op, the operand that is wrong, and all
 * operands with their types and shapes.
 */
export function inferOutputs(op: OpName, inputs: Inputs, options: ShapeOptions): OutputSpec[] {
  const call = new Call(op, inputs);
  return rules[op]?.(call, options) ?? call.outputs(options);
}
