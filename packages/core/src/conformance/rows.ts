/**
 * Cases of norms, softmax, and ops that pick rows or elements.
 * @module
 */
import * as ops from "../ops.ts";
import type { Tensor } from "../tensor.ts";
import {
  byRow,
  type CaseMaker,
  close,
  exact,
  type HostTensor,
  lastDim,
  type OpCase,
  Random,
  rowsOf,
  tails,
  type Tolerance,
} from "./case.ts";

const inf = Infinity;

/** Rows with what softmax and argmax must get right. */
function specialRows(): HostTensor {
  return rowsOf([
    [-inf, -inf, -inf, -inf, -inf],
    [-inf, 1, -inf, 2, -inf],
    [1e4, 1e4 + 1, -1e5, 0, 9999],
    [1, NaN, 2, 3, -inf],
    [88, 88.5, -88, 87, 0],
    [-1e30, -1e30, -1e30, -1e30, -1e30],
  ]);
}

export function softmaxOf(row: readonly number[], scale = 1): number[] {
  const scaled = row.map((x) => x * scale);
  if (scaled.some(Number.isNaN)) return row.map(() => NaN);
  const max = Math.max(...scaled);
  if (max === -inf) return row.map(() => 0);
  const e = scaled.map((x) => Math.exp(x - max));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

function logSoftmaxOf(row: readonly number[]): number[] {
  if (row.some(Number.isNaN)) return row.map(() => NaN);
  const max = Math.max(...row);
  const sum = Math.log(row.reduce((a, b) => a + Math.exp(b - max), 0));
  return row.map((x) => x - max - sum);
}

function rmsOf(row: readonly number[], weight: ArrayLike<number>, eps: number, offset: number): number[] {
  const mean = row.reduce((a, b) => a + b * b, 0) / row.length;
  return row.map((x, i) => x / Math.sqrt(mean + eps) * (weight[i] + offset));
}

const tiny: number = Math.fround(1e-5);

/** An op on rows of x with a weight per column, on every tail. */
function normCases(
  call: (inputs: Tensor[], out?: Tensor) => Tensor[],
  of: (row: number[], weight: ArrayLike<number>, bias?: ArrayLike<number>) => number[],
  weights: number,
): OpCase[] {
  const random = new Random(21);
  const made = (name: string, x: HostTensor): OpCase => ({
    name,
    inputs: [x, ...Array.from({ length: weights }, () => random.tensor([lastDim(x)], 1))],
    call,
    expect: ([x0, w, b]) => [byRow(x0, lastDim(x), (row) => of(row, w, b))],
    tolerance: { abs: 4e-6, rel: 4e-6 },
    rowInputs: [0],
  });
  return [
    ...tails.map((n) => made(`5x${n}`, random.tensor([5, n]))),
    made("2x3x4x33", random.tensor([2, 3, 4, 33])),
    made("1x4096", random.tensor([1, 4096])),
    made("zeros and nan", rowsOf([[0, 0, 0], [1, NaN, 2], [1e-20, 1e-20, 0]])),
  ];
}

function residualCases(): OpCase[] {
  const random = new Random(22);
  return [...tails.map((n) => [5, n]), [2, 3, 33], [1, 4096], [6, 96]].map((shape): OpCase => {
    const n = shape[shape.length - 1];
    return {
      name: shape.join("x"),
      inputs: [random.tensor(shape), random.tensor(shape), random.tensor([n], 1)],
      call: ([x, residual, w], sum) => {
        const { sum: s, out } = ops.rmsnormResidual(x, residual, w, { eps: tiny, offset: 1, sum });
        return [s, out];
      },
      expect: ([x, r, w]) => {
        const sum = Array.from(x, (value, i) => Math.fround(value + r[i]));
        return [sum, byRow(sum, n, (row) => rmsOf(row, w, tiny, 1))];
      },
      quantized: n % 32 === 0
        ? ([x, residual, w]) => ops.rmsnormResidual(x, residual, w, { eps: tiny, offset: 1, quantized: true }).out
        : undefined,
      tolerance: { abs: 4e-6, rel: 4e-6 },
      rowInputs: [0, 1],
    };
  });
}

/** Rows that can be quantised on the way. */
function quantizedNormCases(): OpCase[] {
  const random = new Random(23);
  const options = { eps: tiny, offset: 1 };
  return [[1, 32], [5, 96], [3, 1056], [17, 64]].map(([rows, n]): OpCase => ({
    name: `${rows}x${n} quantised`,
    inputs: [random.tensor([rows, n]), random.tensor([n], 1)],
    call: ([x, w], out) => [ops.rmsnorm(x, w, { ...options, out })],
    quantized: ([x, w]) => ops.rmsnorm(x, w, { ...options, quantized: true }),
    expect: ([x, w]) => [byRow(x, n, (row) => rmsOf(row, w, tiny, 1))],
    tolerance: { abs: 4e-6, rel: 4e-6 },
  }));
}

function layernormOf(row: readonly number[], weight: ArrayLike<number>, bias?: ArrayLike<number>): number[] {
  const mean = row.reduce((a, b) => a + b, 0) / row.length;
  const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / row.length;
  return row.map((x, i) => (x - mean) / Math.sqrt(variance + tiny) * weight[i] + (bias?.[i] ?? 0));
}

/** An op on rows of x alone. */
function rowCases(
  call: (x: Tensor, out?: Tensor) => Tensor,
  of: (row: number[]) => number[],
  special: readonly HostTensor[],
  tolerance: Tolerance = close,
): OpCase[] {
  const random = new Random(23);
  const made = (name: string, x: HostTensor): OpCase => ({
    name,
    inputs: [x],
    call: ([x], out) => [call(x, out)],
    expect: ([values]) => [byRow(values, lastDim(x), of)],
    tolerance,
    rowInputs: [0],
  });
  return [
    ...tails.map((n) => made(`5x${n}`, random.tensor([5, n], 4))),
    made("2x3x4x33", random.tensor([2, 3, 4, 33], 4)),
    made("2x5000", random.tensor([2, 5000], 4)),
    ...special.map((x, i) => made(`special ${i}`, x)),
  ];
}

function causalCases(): OpCase[] {
  const random = new Random(24);
  const cases: OpCase[] = [];
  for (const n of tails) {
    for (const [queries, offset] of [[n, 0], [1, n - 1], [Math.ceil(n / 2), 2], [3, 1000]]) {
      const x = random.tensor([2, queries, n], 3);
      cases.push({
        name: `2x${queries}x${n} offset ${offset}`,
        inputs: [x],
        call: ([x], out) => [ops.causalSoftmax(x, { offset, scale: 0.5, out })],
        expect: ([values]) => [
          byRow(values, n, (row, i) => softmaxOf(row.map((v, j) => j <= (i % queries) + offset ? v : -inf), 0.5)),
        ],
        tolerance: close,
      });
    }
  }
  return cases;
}

function crossEntropyCases(): OpCase[] {
  const random = new Random(25);
  return tails.map((n) => ({
    name: `9x${n}`,
    inputs: [random.tensor([9, n], 4), random.ids([9], n)],
    call: ([x, target]) => [ops.crossEntropy(x, target)],
    expect: ([x, target]) => [byRow(x, n, (row, i) => [-logSoftmaxOf(row)[target[i]]])],
    tolerance: { abs: 4e-6, rel: 4e-6 },
    rowInputs: [0, 1],
  }));
}

function argmaxOf(row: readonly number[]): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) {
    if (row[i] > row[best] || (Number.isNaN(row[best]) && !Number.isNaN(row[i]))) best = i;
  }
  return best;
}

function argmaxCases(): OpCase[] {
  const random = new Random(26);
  const ties = rowsOf([[1, 3, 3, 2, 3], [NaN, 1, NaN, 1, 0], [-inf, -inf, -inf, -inf, -inf], [NaN, -inf, NaN, 5, 5], [
    0,
    -0,
    0,
    0,
    0,
  ]]);
  const long: HostTensor = {
    dtype: "f32",
    shape: [2, 70000],
    values: Float64Array.from({ length: 140000 }, () => random.int(1000)),
  };
  return [...tails.map((n) => random.tensor([5, n])), ties, specialRows(), long].map((x) => ({
    name: x.shape.join("x"),
    inputs: [x],
    call: ([x]) => [ops.argmax(x)],
    expect: ([values]) => [byRow(values, lastDim(x), (row) => [argmaxOf(row)])],
    tolerance: exact,
    rowInputs: [0],
  }));
}

function topkCases(): OpCase[] {
  const random = new Random(27);
  const ties: HostTensor = {
    dtype: "f32",
    shape: [4, 65],
    values: Float64Array.from({ length: 260 }, () => random.int(5)),
  };
  return [...tails.map((n) => random.tensor([5, n])), ties].flatMap((x) =>
    [1, 2, 8, lastDim(x)].filter((k) => k <= lastDim(x)).map((k): OpCase => {
      const best = (row: number[]) => row.map((_, i) => i).sort((a, b) => row[b] - row[a] || a - b).slice(0, k);
      return {
        name: `${x.shape.join("x")} k ${k}`,
        inputs: [x],
        call: ([x]) => {
          const { values, indices } = ops.topk(x, k);
          return [values, indices];
        },
        expect: ([values]) => [
          byRow(values, lastDim(x), (row) => best(row).map((i) => row[i])),
          byRow(values, lastDim(x), best),
        ],
        tolerance: exact,
        rowInputs: [0],
      };
    })
  );
}

function softmaxTopkCases(): OpCase[] {
  const random = new Random(29);
  return [...tails, 128].flatMap((n) =>
    [1, 2, 8].filter((k) => k <= n).flatMap((k) =>
      [false, true].map((normalized): OpCase => ({
        name: `5x${n} k ${k}${normalized ? " normalized" : ""}`,
        inputs: [random.tensor([5, n], 4)],
        call: ([x]) => {
          const { weights, indices } = ops.softmaxTopk(x, k, { scale: 0.5, normalized });
          return [weights, indices];
        },
        expect: ([x], [, indices]) => {
          // Which of two nearly equal ones comes first is decided after rounding, so the order is taken as given.
          const picked = (row: number[], i: number) => {
            const all = softmaxOf(row.map((value) => value * 0.5));
            const chosen = Array.from({ length: k }, (_, j) => all[indices[i * k + j]]);
            const sum = chosen.reduce((a, b) => a + b, 0);
            const least = [...all].sort((a, b) => b - a)[k - 1];
            if (chosen.some((value) => value < least * (1 - 1e-6))) return chosen.map(() => NaN);
            return normalized ? chosen.map((value) => value / sum) : chosen;
          };
          return [byRow(x, n, picked), indices];
        },
        tolerance: close,
        rowInputs: [0],
      }))
    )
  );
}

function takeRowsCases(): OpCase[] {
  const random = new Random(28);
  return tails.flatMap((n) =>
    [[0, 1], [4, 1], [1, 3], [0, 5]].map(([start, count]): OpCase => ({
      name: `5x${n} from ${start} count ${count}`,
      inputs: [random.tensor([5, n])],
      call: ([x]) => [ops.takeRows(x, { start, count })],
      expect: ([x]) => [Array.from(x).slice(start * n, (start + count) * n)],
      tolerance: exact,
    }))
  );
}

/** Heads that are turned; or normalised first, with the bits of the ops one by one. */
function ropeCases(normed: boolean): OpCase[] {
  const random = new Random(29);
  const shapes = [[1, 1, 2, 2], [3, 2, 8, 8], [7, 3, 34, 34], [5, 4, 64, 32], [17, 2, 128, 128], [2, 5, 66, 6]];
  const options = { position: 300, scale: 1.25 };
  return shapes.flatMap(([tokens, heads, headDim, rotary]) =>
    [[false, false], [false, true], [true, false], [true, true]].map(([interleaved, given]): OpCase => {
      const pairs = rotary / 2;
      const inverse = Float64Array.from({ length: pairs }, (_, i) => Math.fround(1e4 ** (-i / pairs)));
      const inputs = [
        random.tensor([tokens, heads, headDim]),
        { dtype: "f32", shape: [pairs], values: inverse },
        given ? random.ids([tokens], 5000) : undefined,
        normed ? random.tensor([headDim], 1) : undefined,
      ] as const;
      return {
        name: `${inputs[0].shape.join("x")} rotary ${rotary}${interleaved ? " interleaved" : ""}` +
          (given ? " positions" : ""),
        inputs,
        call: ([x, f, positions, w], out) => {
          const own = { ...options, positions, interleaved, out };
          return [normed ? ops.rmsnormRope(x, w, f, { ...own, ...eps, offset: 1 }) : ops.rope(x, f, own)];
        },
        expect: ([x, f, positions, w]) => [
          byRow(x, headDim, (row, i) => {
            const token = Math.floor(i / heads);
            const plain = normed ? rmsOf(row, w, tiny, 1) : row;
            return turn(plain, f, positions?.[token] ?? 300 + token, interleaved);
          }),
        ],
        tolerance: { abs: normed ? 8e-6 : 4e-6, rel: 4e-6 },
        chunks: normed
          ? ([x, f, positions, w]) => [
            ops.rope(ops.rmsnorm(x, w, { ...eps, offset: 1 }), f, { ...options, positions, interleaved }),
          ]
          : undefined,
      };
    })
  );
}

function turn(row: number[], f: ArrayLike<number>, position: number, interleaved: boolean): number[] {
  const out = row.slice();
  for (let i = 0; i < f.length; i++) {
    const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, i + f.length];
    const [cos, sin] = [Math.cos(position * f[i]), Math.sin(position * f[i])];
    out[a] = 1.25 * (row[a] * cos - row[b] * sin);
    out[b] = 1.25 * (row[b] * cos + row[a] * sin);
  }
  return out;
}

const eps = { eps: tiny };

/** Cases by op. */
export const rows: Record<
  | "rmsnorm"
  | "rmsnorm_residual"
  | "layernorm"
  | "l2norm"
  | "softmax"
  | "causal_softmax"
  | "log_softmax"
  | "cross_entropy"
  | "argmax"
  | "topk"
  | "softmax_topk"
  | "take_rows"
  | "rope"
  | "rmsnorm_rope",
  CaseMaker
> = {
  rmsnorm: () => [
    ...quantizedNormCases(),
    ...normCases(([x, w], out) => [ops.rmsnorm(x, w, { ...eps, out })], (row, w) => rmsOf(row, w, tiny, 0), 1),
    ...normCases(
      ([x, w], out) => [ops.rmsnorm(x, w, { ...eps, offset: 1, out })],
      (row, w) => rmsOf(row, w, tiny, 1),
      1,
    ),
  ],
  rmsnorm_residual: residualCases,
  layernorm: () => [
    ...normCases(([x, w, b], out) => [ops.layernorm(x, w, b, { ...eps, out })], layernormOf, 2),
    ...normCases(([x, w], out) => [ops.layernorm(x, w, undefined, { ...eps, out })], layernormOf, 1),
  ],
  l2norm: () =>
    rowCases((x, out) => ops.l2norm(x, { eps: tiny, out }), (row) => {
      const norm = Math.max(Math.sqrt(row.reduce((a, b) => a + b * b, 0)), tiny);
      return row.map((x) => x / norm);
    }, [rowsOf([[0, 0, 0], [1e-9, 0, 0], [3, 4, 0]])]),
  softmax: () => [
    ...rowCases((x, out) => ops.softmax(x, { out }), (row) => softmaxOf(row), [specialRows()]),
    ...rowCases((x, out) => ops.softmax(x, { scale: 0.125, out }), (row) => softmaxOf(row, 0.125), []),
  ],
  causal_softmax: causalCases,
  log_softmax: () =>
    rowCases((x, out) => ops.logSoftmax(x, { out }), logSoftmaxOf, [
      rowsOf([[1, -inf, 2], [1e4, 1e4 - 1, 0], [NaN, 0, 1]]),
    ], {
      abs: 4e-6,
      rel: 4e-6,
    }),
  cross_entropy: crossEntropyCases,
  argmax: argmaxCases,
  topk: topkCases,
  softmax_topk: softmaxTopkCases,
  take_rows: takeRowsCases,
  rope: () => ropeCases(false),
  rmsnorm_rope: () => ropeCases(true),
};
