/**
 * Cases of the paged cache and of attention over it.
 * @module
 */
import * as ops from "../ops.ts";
import { byRow, type CaseMaker, exact, type HostTensor, type OpCase, Random, rounders } from "./case.ts";
import { softmaxOf } from "./rows.ts";

interface Shape {
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  pageSize: number;
  position: number;
  dtype: "f32" | "f16";
  window?: number;
  softcap?: number;
}

/** Logical pages in a mixed physical order, with pages to spare. */
function pageTable(random: Random, logical: number): HostTensor {
  const order = Array.from({ length: logical }, (_, i) => i);
  for (let i = logical - 1; i > 0; i--) {
    const j = random.int(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return { dtype: "i32", shape: [logical], values: order };
}

function pageCount({ position, tokens, pageSize }: Shape): number {
  return Math.ceil((position + tokens) / pageSize) + 1;
}

function cacheOf(random: Random, shape: Shape): HostTensor {
  return random.tensor([pageCount(shape), shape.kvHeads, shape.pageSize, shape.headDim], 1, shape.dtype);
}

const describe = (s: Shape): string =>
  `${s.tokens}x${s.heads}/${s.kvHeads}x${s.headDim} at ${s.position}, pages of ${s.pageSize} ${s.dtype}` +
  `${s.window ? ` window ${s.window}` : ""}${s.softcap ? ` softcap ${s.softcap}` : ""}`;

/** Index of key j of a kv head in a cache. */
function keyAt(s: Shape, pages: ArrayLike<number>, head: number, j: number): number {
  return ((pages[Math.floor(j / s.pageSize)] * s.kvHeads + head) * s.pageSize + (j % s.pageSize)) * s.headDim;
}

/** NaN behind the last token: caches are not cleared, so nothing may depend on what lies there. */
function poison(s: Shape, cache: HostTensor, pages: HostTensor): HostTensor {
  const values = Float64Array.from(cache.values);
  for (let j = s.position + s.tokens; j < pages.shape[0] * s.pageSize; j++) {
    for (let head = 0; head < s.kvHeads; head++) {
      const at = keyAt(s, pages.values, head, j);
      values.fill(NaN, at, at + s.headDim);
    }
  }
  return { ...cache, values };
}

function expected(s: Shape, scale: number, [q, k, v, pages]: readonly ArrayLike<number>[]): number[] {
  return byRow(q, s.headDim, (row, index) => {
    const [token, head] = [Math.floor(index / s.heads), index % s.heads];
    const kvHead = Math.floor(head / (s.heads / s.kvHeads));
    const end = s.position + token;
    const start = s.window ? Math.max(0, end - s.window + 1) : 0;
    const keys = Array.from({ length: end - start + 1 }, (_, i) => keyAt(s, pages, kvHead, start + i));
    const scores = keys.map((at) => {
      const dot = row.reduce((sum, x, i) => sum + x * k[at + i], 0) * scale;
      return s.softcap ? s.softcap * Math.tanh(dot / s.softcap) : dot;
    });
    const weights = softmaxOf(scores);
    return row.map((_, i) => keys.reduce((sum, at, j) => sum + weights[j] * v[at + i], 0));
  });
}

const shapes: readonly Shape[] = [
  { tokens: 1, heads: 1, kvHeads: 1, headDim: 8, pageSize: 4, position: 0, dtype: "f32" },
  { tokens: 1, heads: 4, kvHeads: 2, headDim: 16, pageSize: 64, position: 32, dtype: "f16" },
  { tokens: 7, heads: 4, kvHeads: 2, headDim: 16, pageSize: 8, position: 0, dtype: "f32" },
  { tokens: 7, heads: 9, kvHeads: 3, headDim: 8, pageSize: 64, position: 3, dtype: "f16" },
  { tokens: 17, heads: 6, kvHeads: 1, headDim: 33, pageSize: 16, position: 40, dtype: "f32" },
  { tokens: 33, heads: 2, kvHeads: 2, headDim: 64, pageSize: 16, position: 0, dtype: "f16" },
  { tokens: 65, heads: 4, kvHeads: 2, headDim: 128, pageSize: 64, position: 65, dtype: "f16" },
  { tokens: 3, heads: 2, kvHeads: 1, headDim: 7, pageSize: 3, position: 11, dtype: "f32" },
  { tokens: 17, heads: 4, kvHeads: 4, headDim: 16, pageSize: 8, position: 9, dtype: "f32", window: 5 },
  { tokens: 9, heads: 4, kvHeads: 2, headDim: 16, pageSize: 8, position: 30, dtype: "f16", window: 16 },
  { tokens: 9, heads: 2, kvHeads: 1, headDim: 32, pageSize: 16, position: 5, dtype: "f32", softcap: 2 },
  { tokens: 1, heads: 14, kvHeads: 2, headDim: 64, pageSize: 64, position: 300, dtype: "f16" },
];

function attentionCases(): OpCase[] {
  const random = new Random(41);
  return shapes.map((s): OpCase => {
    const scale = 1 / Math.sqrt(s.headDim);
    const options = { scale, window: s.window, softcap: s.softcap };
    const pages = pageTable(random, pageCount(s));
    const [k, v] = [cacheOf(random, s), cacheOf(random, s)].map((cache) => poison(s, cache, pages));
    return {
      name: describe(s),
      inputs: [random.tensor([s.tokens, s.heads, s.headDim], 3), k, v, pages],
      call: ([q, k, v, pages]) => [ops.attention(q, k, v, pages, { ...options, position: s.position })],
      expect: (inputs) => [expected(s, Math.fround(scale), inputs)],
      tolerance: { abs: 4e-6, rel: 1e-5 },
      dense: [1, 2, 3],
      chunks: ([q, k, v, pages]) =>
        Array.from(
          { length: s.tokens },
          (_, t) => ops.attention(q.narrow(0, t, 1), k, v, pages, { ...options, position: s.position + t }),
        ),
    };
  });
}

function appendCases(): OpCase[] {
  const random = new Random(42);
  return shapes.map((s): OpCase => ({
    name: describe(s),
    inputs: [random.tensor([s.tokens, s.kvHeads, s.headDim]), pageTable(random, pageCount(s)), cacheOf(random, s)],
    call: ([x, pages, cache]) => [ops.copy(ops.kvAppend(x, pages, cache, { position: s.position }))],
    expect: ([x, pages, cache]) => {
      const out = Array.from(cache);
      for (let i = 0; i < x.length; i++) {
        const [token, head] = [Math.floor(i / (s.kvHeads * s.headDim)), Math.floor(i / s.headDim) % s.kvHeads];
        out[keyAt(s, pages, head, s.position + token) + (i % s.headDim)] = rounders[s.dtype](x[i]);
      }
      return [out];
    },
    tolerance: exact,
    dense: [1, 2],
  }));
}

/** Cases by op. */
export const attention: Record<"kv_append" | "attention", CaseMaker> = {
  kv_append: appendCases,
  attention: attentionCases,
};
