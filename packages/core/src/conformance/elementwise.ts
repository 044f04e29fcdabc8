/**
 * Cases of elementwise ops.
 * @module
 */
import * as ops from "../ops.ts";
import type { Tensor } from "../tensor.ts";
import {
  type CaseMaker,
  close,
  exact,
  type HostTensor,
  type OpCase,
  Random,
  rounders,
  rowsOf,
  tails,
  type Tolerance,
} from "./case.ts";

type Call = (x: Tensor, options?: { out?: Tensor }) => Tensor;

/** Error function by its Taylor series below 2.5 and a continued fraction above: about 1e-15. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (Number.isNaN(x)) return NaN;
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a;
    let sum = a;
    for (let n = 1; n < 80; n++) {
      term *= -(a * a) / n;
      sum += term / (2 * n + 1);
    }
    return Math.sign(x) * sum * 2 / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = (n / 2) / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * (a + fraction)));
}

const sigmoidOf = (x: number): number => 1 / (1 + Math.exp(-x));
const siluOf = (x: number): number => x * sigmoidOf(x);
const geluTanhOf = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const geluErfOf = (x: number): number => 0.5 * x * (1 + erf(x / Math.SQRT2));
const positive = (x: number): number => Number.isNaN(x) ? NaN : Math.max(x, 0);

/** Cases of a function of one value: every tail, more than two dims, edges of the range, NaN. */
function unary(
  call: Call,
  of: (x: number) => number,
  tolerance: Tolerance = close,
  edges: readonly number[] = [],
): CaseMaker {
  return (): OpCase[] => {
    const random = new Random(11);
    const made = (name: string, x: HostTensor): OpCase => ({
      name,
      inputs: [x],
      call: ([x], out) => [call(x, { out })],
      expect: ([x]) => [Array.from(x, of)],
      tolerance,
    });
    const special = [0, -0, 1e-30, -1e-30, 20, -20, NaN, 60, -60, ...edges];
    return [
      ...tails.map((n) => made(`3x${n}`, random.tensor([3, n], 6))),
      made("2x3x5x7", random.tensor([2, 3, 5, 7], 3)),
      made("33", random.tensor([33], 3)),
      made("40000", random.tensor([8, 5000], 3)),
      made("edges", rowsOf([special, special.toReversed()])),
    ];
  };
}

function binary(
  call: (a: Tensor, b: Tensor, options?: { out?: Tensor; quantized?: boolean }) => Tensor,
  of: (a: number, b: number) => number,
  tolerance: Tolerance,
  broadcast: boolean,
): CaseMaker {
  return (): OpCase[] => {
    const random = new Random(12);
    const made = (name: string, a: HostTensor, b: HostTensor): OpCase => ({
      name,
      inputs: [a, b],
      call: ([a, b], out) => [call(a, b, { out })],
      expect: ([a, b]) => [Array.from(a, (value, i) => of(value, b[i % b.length]))],
      tolerance,
    });
    const pair = (...shape: number[]): OpCase =>
      made(shape.join("x"), random.tensor(shape, 4), random.tensor(shape, 4));
    const quantizable = (one: OpCase): OpCase => ({
      ...one,
      name: `${one.name} quantised`,
      quantized: ([a, b]) => call(a, b, { quantized: true }),
    });
    const nan = rowsOf([[NaN, 1, 2, NaN], [0, -0, 1e30, -1e30]]);
    const cases = [...tails.map((n) => pair(3, n)), pair(2, 3, 5, 7), pair(4, 7000), pair(17), made("nan", nan, nan)];
    if (!broadcast) return [...cases, ...[[1, 32], [5, 96], [3, 1056]].map((shape) => quantizable(pair(...shape)))];
    return [
      ...cases,
      ...tails.map((n) => made(`5x${n} row`, random.tensor([5, n]), random.tensor([n]))),
      made("3x4x5 matrix", random.tensor([3, 4, 5]), random.tensor([4, 5])),
      made("2x3x4x5 row", random.tensor([2, 3, 4, 5]), random.tensor([5])),
    ];
  };
}

function copyCases(): OpCase[] {
  const random = new Random(13);
  const types = ["f32", "f16", "bf16"] as const;
  const cases: OpCase[] = [];
  for (const from of types) {
    for (const to of types) {
      for (const shape of [...tails.map((n) => [3, n]), [2, 3, 4, 5], [9]]) {
        const x = random.tensor(shape, 4, from);
        const round = rounders[to];
        cases.push({
          name: `${from} to ${to} ${shape.join("x")}`,
          inputs: [x],
          call: ([x]) => [ops.copy(x, { dtype: to })],
          expect: ([x]) => [Array.from(x, round)],
          tolerance: exact,
        });
      }
    }
  }
  const ids = random.ids([3, 17], 1000);
  cases.push({ name: "i32", inputs: [ids], call: ([x]) => [ops.copy(x)], expect: ([x]) => [x], tolerance: exact });
  return cases;
}

/** Cases by op. */
export const elementwise: Record<
  | "copy"
  | "add"
  | "mul"
  | "mul_const"
  | "silu"
  | "gelu_tanh"
  | "gelu_erf"
  | "quick_gelu"
  | "sigmoid"
  | "relu"
  | "relu2"
  | "tanh"
  | "softplus"
  | "exp"
  | "softcap"
  | "swiglu"
  | "geglu_tanh",
  CaseMaker
> = {
  copy: copyCases,
  add: binary(ops.add, (a, b) => Math.fround(a + b), exact, true),
  mul: binary(ops.mul, (a, b) => Math.fround(a * b), exact, true),
  mul_const: unary((x, o) => ops.mulConst(x, 0.3, o), (x) => Math.fround(x * Math.fround(0.3)), exact),
  silu: unary(ops.silu, siluOf),
  gelu_tanh: unary(ops.geluTanh, geluTanhOf),
  gelu_erf: unary(ops.geluErf, geluErfOf),
  quick_gelu: unary(ops.quickGelu, (x) => x * sigmoidOf(1.702 * x)),
  sigmoid: unary(ops.sigmoid, sigmoidOf, close, [Infinity, -Infinity]),
  relu: unary(ops.relu, positive, exact, [Infinity, -Infinity]),
  relu2: unary(ops.relu2, (x) => Math.fround(positive(x) ** 2), exact, [Infinity, -Infinity]),
  tanh: unary(ops.tanh, Math.tanh, close, [Infinity, -Infinity]),
  softplus: unary(ops.softplus, (x) => x > 30 ? x : Math.log1p(Math.exp(x)), close),
  exp: unary(ops.exp, Math.exp, { abs: 1e-37, rel: 4e-6 }, [-Infinity, 80, -80]),
  softcap: unary((x, o) => ops.softcap(x, 30, o), (x) => 30 * Math.tanh(x / 30), { abs: 1e-5, rel: 4e-6 }),
  swiglu: binary(ops.swiglu, (gate, up) => siluOf(gate) * up, { abs: 4e-6, rel: 8e-6 }, false),
  geglu_tanh: binary(ops.gegluTanh, (gate, up) => geluTanhOf(gate) * up, { abs: 4e-6, rel: 8e-6 }, false),
};
