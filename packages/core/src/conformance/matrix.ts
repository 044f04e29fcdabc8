/**
 * Cases of packed weights, linear, embedding, matmul and quantised activations.
 * @module
 */
import { byteLength, type DType, dtypes } from "../dtype.ts";
import { dequantize } from "../formats/quant/dequantize.ts";
import * as ops from "../ops.ts";
import type { Tensor } from "../tensor.ts";
import { byRow, type CaseMaker, exact, type HostTensor, type OpCase, Random, tails, type Tolerance } from "./case.ts";

/** Byte offsets of the f16 scales in a block, and their size so that values are about 1. */
const blockScales: Partial<Record<DType, { offsets: number[]; scale: number }>> = {
  q4_0: { offsets: [0], scale: 0.12 },
  q4_1: { offsets: [0, 2], scale: 0.06 },
  q5_0: { offsets: [0], scale: 0.06 },
  q5_1: { offsets: [0, 2], scale: 0.03 },
  q8_0: { offsets: [0], scale: 0.008 },
  q2_k: { offsets: [80, 82], scale: 0.02 },
  q3_k: { offsets: [108], scale: 0.008 },
  q4_k: { offsets: [0, 2], scale: 0.001 },
  q5_k: { offsets: [0, 2], scale: 0.0005 },
  q6_k: { offsets: [208], scale: 0.00025 },
  iq4_nl: { offsets: [0], scale: 0.008 },
  iq4_xs: { offsets: [0], scale: 0.00025 },
  tq1_0: { offsets: [52], scale: 1 },
  tq2_0: { offsets: [64], scale: 1 },
  mxfp4: { offsets: [], scale: 1 },
};

/** Types of weights that are blocks. */
export const blockTypes = Object.keys(blockScales) as DType[];
const weightTypes: DType[] = ["f32", "f16", "bf16", ...blockTypes];

/** Random weights [n, k] of any type. */
function weights(random: Random, dtype: DType, n: number, k: number): HostTensor {
  if (dtype === "f32" || dtype === "f16" || dtype === "bf16") return random.tensor([n, k], 1, dtype);
  const { offsets, scale } = blockScales[dtype]!;
  const bytes = random.bytes(byteLength(dtype, [n, k]));
  const view = new DataView(bytes.buffer);
  const { blockBytes } = dtypes[dtype];
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const offset of offsets) view.setFloat16(at + offset, (0.2 + random.next()) * scale, true);
    // mxfp4 scales are powers of two (e8m0): 2^(e - 127)
    if (dtype === "mxfp4") bytes[at] = 123 + random.int(3);
  }
  return { dtype, shape: [n, k], bytes, values: dequantize(dtype, bytes, n * k) };
}

/** Lengths of rows that a type can have, tails first. */
function rowLengths(dtype: DType): readonly number[] {
  const { blockElements } = dtypes[dtype];
  return blockElements === 1 ? tails : blockElements === 32 ? [32, 96, 160, 1056] : [256, 512, 1280];
}

function product(x: ArrayLike<number>, w: ArrayLike<number>, k: number, bias?: ArrayLike<number>): number[] {
  const n = w.length / k;
  return byRow(x, k, (row) =>
    Array.from({ length: n }, (_, j) => {
      let sum = bias?.[j] ?? 0;
      for (let i = 0; i < k; i++) sum += row[i] * w[j * k + i];
      return sum;
    }));
}

const sums = (k: number): Tolerance => ({ abs: 1e-6 * (4 + Math.sqrt(k)), rel: 8e-6 });

function linearCases(): OpCase[] {
  const random = new Random(31);
  const cases: OpCase[] = [];
  for (const dtype of weightTypes) {
    rowLengths(dtype).forEach((k, index) => {
      for (const [rows, n] of [[1, 33], [2, 1], [5, 17], [17, 65]]) {
        cases.push({
          name: `${dtype} ${rows}x${k} n ${n}`,
          inputs: [
            random.tensor([rows, k], 1),
            weights(random, dtype, n, k),
            index % 2 ? undefined : random.tensor([n]),
          ],
          call: ([x, w, bias]) => [ops.linear(x, ops.packWeight(w), bias)],
          expect: ([x, w, bias]) => [product(x, w, k, bias)],
          tolerance: sums(k),
          dense: [1],
          wholeRows: [0],
          rowInputs: [0],
        });
        if (dtypes[dtype].quantized) cases.push(quantisedLinear(random, dtype, rows, n, k));
      }
    });
    if (dtypes[dtype].quantized) cases.push(manyRows(random, dtype));
  }
  return cases;
}

/** x quantised first: exact against the product of what was quantised, up to the order of f32 sums. */
function quantisedLinear(random: Random, dtype: DType, rows: number, n: number, k: number): OpCase {
  return {
    name: `${dtype} i8 ${rows}x${k} n ${n}`,
    inputs: [random.tensor([rows, k], 1), weights(random, dtype, n, k), random.tensor([n])],
    call: ([x, w, bias]) => {
      const quantised = ops.quantizeRows(x);
      return [ops.linear(quantised, ops.packWeight(w), bias), quantised];
    },
    expect: ([, w, bias], [, quantised]) => [product(quantised, w, k, bias), quantised],
    tolerance: sums(k),
    dense: [1],
    wholeRows: [0],
    rowInputs: [0],
  };
}

/** As many rows as a level may round more for (see the op table): still the same bits in any parts of that many. */
function manyRows(random: Random, dtype: DType): OpCase {
  const [rows, n, k] = [130, 33, rowLengths(dtype)[1]];
  const { tolerance: _, rowInputs: __, ...one } = quantisedLinear(random, dtype, rows, n, k);
  return {
    ...one,
    // What rounding both factors to bf16 may do; all weights of a block may be rounded the same way.
    tolerance: { abs: 6e-3 * Math.sqrt(k), rel: 2 ** -8 },
    chunks: ([x, w, bias]) => [[0, 66], [66, 64]].map(([at, count]) => one.call([x.narrow(0, at, count), w, bias])[0]),
  };
}

/** What two `linear` and `swiglu` give of what was quantised, up to the order of f32 sums; many rows as `manyRows`. */
function swigluCases(): OpCase[] {
  const random = new Random(36);
  return blockTypes.flatMap((dtype) =>
    [[1, 64], [2, 32], [5, 96], [17, 32], [130, 64]].map(([rows, n]): OpCase => {
      const k = rowLengths(dtype)[1];
      const call = ([x, gate, up]: Tensor[]): Tensor[] => {
        const quantised = ops.quantizeRows(x);
        return [ops.linearSwiglu(quantised, ops.packWeight(gate), ops.packWeight(up)), quantised];
      };
      return {
        name: `${dtype} ${rows}x${k} n ${n}`,
        inputs: [random.tensor([rows, k], 0.1), weights(random, dtype, n, k), weights(random, dtype, n, k)],
        call,
        expect: ([, gate, up], [, quantised]) => {
          const ups = product(quantised, up, k);
          return [product(quantised, gate, k).map((g, i) => g / (1 + Math.exp(-g)) * ups[i]), quantised];
        },
        tolerance: rows < 64 ? { abs: 2e-5, rel: 2e-5 } : { abs: 1.5e-3 * Math.sqrt(k), rel: 2 ** -6 },
        dense: [1, 2],
        wholeRows: [0],
        // The ops one by one, and of many rows the last ones in a run of their own.
        chunks: ([x, gate, up]) => {
          const [g, u] = [gate, up].map((w) => ops.linear(ops.quantizeRows(x), ops.packWeight(w)));
          const single = ops.swiglu(g, u);
          if (rows < 128) return [single];
          return [single.narrow(0, 0, 66), call([x.narrow(0, 66, rows - 66), gate, up])[0]];
        },
        rowInputs: rows < 64 ? [0] : undefined,
      };
    })
  );
}

function packCases(): OpCase[] {
  const random = new Random(32);
  return weightTypes.flatMap((dtype) =>
    rowLengths(dtype).flatMap((k) =>
      [1, 16, 33].map((n): OpCase => ({
        name: `${dtype} ${n}x${k}`,
        inputs: [weights(random, dtype, n, k)],
        call: ([w]) => [ops.copy(ops.packWeight(w)), ops.copy(w, { dtype: "f32" })],
        expect: ([w]) => [w, w],
        tolerance: dtypes[dtype].quantized ? { abs: 1e-9, rel: 4e-7 } : exact,
        dense: [0],
      }))
    )
  );
}

function embeddingCases(): OpCase[] {
  const random = new Random(33);
  return weightTypes.flatMap((dtype) =>
    rowLengths(dtype).flatMap((k) =>
      [false, true].map((packed): OpCase => ({
        name: `${dtype} 33x${k}${packed ? " packed" : ""}`,
        inputs: [random.ids([9], 33), weights(random, dtype, 33, k)],
        call: ([ids, table]) => [ops.embedding(ids, packed ? ops.packWeight(table) : table)],
        expect: ([ids, table]) => [
          Array.from(ids).flatMap((id) => Array.from({ length: k }, (_, i) => table[id * k + i])),
        ],
        tolerance: dtypes[dtype].quantized ? { abs: 1e-9, rel: 4e-7 } : exact,
        dense: [1],
        rowInputs: [0],
      }))
    )
  );
}

function quantizeCases(): OpCase[] {
  const random = new Random(34);
  const codes = (rows: number, k: number): HostTensor => {
    const values = Float64Array.from({ length: rows * k }, (_, i) => i % 32 === 5 ? -127 : random.int(255) - 127);
    return { dtype: "f32", shape: [rows, k], values };
  };
  const made = (name: string, x: HostTensor, tolerance: Tolerance): OpCase => ({
    name,
    inputs: [x],
    call: ([x]) => [ops.quantizeRows(x)],
    expect: ([x]) => [x],
    tolerance,
    wholeRows: [0],
    rowInputs: [0],
  });
  return [32, 64, 96, 160, 1056].flatMap((k) => [
    // With the largest value 127 the scale is 1 and every code is exact.
    made(`codes 3x${k}`, codes(3, k), exact),
    made(`zeros 2x${k}`, { dtype: "f32", shape: [2, k], values: new Float64Array(2 * k) }, exact),
    // Values below 1.27 have scales below 0.01; half a scale is the most that rounding moves.
    made(`random 5x${k}`, random.tensor([5, k], 1.27), { abs: 0.00501, rel: 0 }),
  ]);
}

function matmulCases(): OpCase[] {
  const random = new Random(35);
  const shapes = [...tails.map((n) => [[n, 7], [7, n]]), ...tails.map((n) => [[3, n], [n, 5]]), [[2, 3, 17, 33], [
    2,
    3,
    33,
    9,
  ]], [
    [4, 5, 6],
    [4, 6, 7],
  ]];
  return shapes.map(([a, b]): OpCase => {
    const [m, k, n] = [a[a.length - 2], a[a.length - 1], b[b.length - 1]];
    return {
      name: `${a.join("x")} by ${b.join("x")}`,
      inputs: [random.tensor(a, 1), random.tensor(b, 1)],
      call: ([a, b]) => [ops.matmul(a, b)],
      expect: ([x, y]) => {
        const out: number[] = [];
        for (let batch = 0; batch < x.length / (m * k); batch++) {
          for (let i = 0; i < m; i++) {
            for (let j = 0; j < n; j++) {
              let sum = 0;
              for (let l = 0; l < k; l++) sum += x[(batch * m + i) * k + l] * y[(batch * k + l) * n + j];
              out.push(sum);
            }
          }
        }
        return [out];
      },
      tolerance: sums(k),
      rowInputs: a.length === 2 ? [0] : undefined,
    };
  });
}

/** Cases by op. */
export const matrix: Record<
  "linear" | "linear_swiglu" | "pack_weight" | "embedding" | "quantize_rows" | "matmul",
  CaseMaker
> = {
  linear: linearCases,
  linear_swiglu: swigluCases,
  pack_weight: packCases,
  embedding: embeddingCases,
  quantize_rows: quantizeCases,
  matmul: matmulCases,
};
