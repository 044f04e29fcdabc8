/**
 * Cases of the paged cache and of attention over it.
 * @module
 */
import type { Backend } from "../backend.ts";
import { cacheTensor, type KvDType } from "../kv_cache.ts";
import * as ops from "../ops.ts";
import { Tensor } from "../tensor.ts";
import { byRow, type CaseMaker, exact, type HostTensor, type OpCase, Random } from "./case.ts";
import { asked, stored } from "./quantised_rows.ts";
import { softmaxOf } from "./rows.ts";

interface Shape {
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  pageSize: number;
  position: number;
  keys: KvDType;
  /** Like keys when absent. */
  values?: KvDType;
  window?: number;
  softcap?: number;
  /** In int8, of at least 64 tokens. */
  int8?: boolean;
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

const pageCount = ({ position, tokens, pageSize }: Shape): number => Math.ceil((position + tokens) / pageSize) + 1;

const valuesOf = ({ keys, values = keys }: Shape): KvDType => values;

const describe = (s: Shape): string =>
  `${s.tokens}x${s.heads}/${s.kvHeads}x${s.headDim} at ${s.position}, pages of ${s.pageSize} ${s.keys}/${valuesOf(s)}` +
  `${s.window ? ` window ${s.window}` : ""}${s.softcap ? ` softcap ${s.softcap}` : ""}${s.int8 ? " in int8" : ""}`;

/** A cache of NaN: caches are not cleared, so nothing may depend on what lies behind the last token. */
function emptyCache(backend: Backend, s: Shape, layout: "kv_keys" | "kv_values"): Tensor {
  const dtype = layout === "kv_keys" ? s.keys : valuesOf(s);
  const cache = cacheTensor(backend, dtype, layout, [pageCount(s), s.kvHeads, s.pageSize, s.headDim]);
  if (cache.storage.kind === "memory") cache.storage.bytesView().fill(0xff);
  return cache;
}

/** Rows [tokens, kvHeads, headDim] of all positions up to the last token. */
const rowsFor = (random: Random, s: Shape): HostTensor =>
  random.tensor([s.position + s.tokens, s.kvHeads, s.headDim], 1);

/** Rows [positions, kvHeads, headDim] as the cache gives them back, and of each the part that is its reference. */
function storedRows(
  s: Shape,
  rows: ArrayLike<number>,
  as: "keys" | "values",
): Record<"all" | "references", Float32Array> {
  const { kvHeads, headDim, pageSize } = s;
  const dtype = as === "keys" ? s.keys : valuesOf(s);
  const count = rows.length / (kvHeads * headDim);
  const [all, references] = [new Float32Array(rows.length), new Float32Array(rows.length)];
  for (let head = 0; head < kvHeads; head++) {
    const start = (j: number) => (j * kvHeads + head) * headDim;
    const own = Array.from({ length: count }, (_, j) => Array.from({ length: headDim }, (_, i) => rows[start(j) + i]));
    stored(own, { dtype, isKeys: as === "keys", pageSize }).forEach(({ row, reference }, j) => {
      all.set(row, start(j));
      references.set(reference, start(j));
    });
  }
  return { all, references };
}

/** f64 attention from q, the rows of keys and of values as the cache holds them. References meet q unrounded. */
function expected(s: Shape, scale: number, [q, keyRows, valueRows]: readonly ArrayLike<number>[]): number[] {
  const { all: k, references } = storedRows(s, keyRows, "keys");
  const v = storedRows(s, valueRows, "values").all;
  const at = (j: number, head: number) => (j * s.kvHeads + head) * s.headDim;
  return byRow(q, s.headDim, (plain, index) => {
    const scaled = plain.map((x) => Math.fround(x * scale));
    const row = s.int8 ? scaled : Array.from(asked(scaled, s.keys));
    const [token, head] = [Math.floor(index / s.heads), index % s.heads];
    const kvHead = Math.floor(head / (s.heads / s.kvHeads));
    const end = s.position + token;
    const start = s.window ? Math.max(0, end - s.window + 1) : 0;
    const keys = Array.from({ length: end - start + 1 }, (_, i) => at(start + i, kvHead));
    const scores = keys.map((from) => {
      const own = (i: number) => k[from + i] - references[from + i];
      const dot = row.reduce((sum, x, i) => sum + x * own(i) + scaled[i] * references[from + i], 0);
      return s.softcap ? s.softcap * Math.tanh(dot / s.softcap) : dot;
    });
    const weights = softmaxOf(scores);
    return row.map((_, i) => keys.reduce((sum, from, j) => sum + weights[j] * v[from + i], 0));
  });
}

const shapes: readonly Shape[] = [
  { tokens: 1, heads: 1, kvHeads: 1, headDim: 8, pageSize: 4, position: 0, keys: "f32" },
  { tokens: 1, heads: 4, kvHeads: 2, headDim: 16, pageSize: 64, position: 32, keys: "f16" },
  { tokens: 7, heads: 4, kvHeads: 2, headDim: 16, pageSize: 8, position: 0, keys: "f32" },
  { tokens: 7, heads: 9, kvHeads: 3, headDim: 8, pageSize: 64, position: 3, keys: "f16" },
  { tokens: 17, heads: 6, kvHeads: 1, headDim: 33, pageSize: 16, position: 40, keys: "f32" },
  { tokens: 33, heads: 2, kvHeads: 2, headDim: 64, pageSize: 16, position: 0, keys: "f16" },
  { tokens: 65, heads: 4, kvHeads: 2, headDim: 128, pageSize: 64, position: 65, keys: "f16" },
  { tokens: 3, heads: 2, kvHeads: 1, headDim: 7, pageSize: 3, position: 11, keys: "f32", values: "f16" },
  { tokens: 17, heads: 4, kvHeads: 4, headDim: 16, pageSize: 8, position: 9, keys: "f32", window: 5 },
  { tokens: 9, heads: 4, kvHeads: 2, headDim: 16, pageSize: 8, position: 30, keys: "f16", window: 16 },
  { tokens: 9, heads: 2, kvHeads: 1, headDim: 32, pageSize: 16, position: 5, keys: "f32", softcap: 2 },
  { tokens: 1, heads: 14, kvHeads: 2, headDim: 64, pageSize: 64, position: 300, keys: "f16" },
  // More query heads per kv head than a tile has rows for few tokens.
  { tokens: 3, heads: 64, kvHeads: 1, headDim: 128, pageSize: 16, position: 60, keys: "f32" },
  { tokens: 3, heads: 64, kvHeads: 1, headDim: 128, pageSize: 16, position: 60, keys: "q8_0" },
  { tokens: 2, heads: 100, kvHeads: 1, headDim: 8, pageSize: 16, position: 20, keys: "f16" },
  { tokens: 1, heads: 14, kvHeads: 2, headDim: 64, pageSize: 64, position: 300, keys: "q8_0" },
  { tokens: 7, heads: 1, kvHeads: 1, headDim: 32, pageSize: 16, position: 0, keys: "q8_0" },
  { tokens: 65, heads: 4, kvHeads: 2, headDim: 128, pageSize: 64, position: 65, keys: "q8_0" },
  { tokens: 33, heads: 6, kvHeads: 2, headDim: 96, pageSize: 48, position: 17, keys: "q4_0" },
  { tokens: 3, heads: 5, kvHeads: 1, headDim: 64, pageSize: 16, position: 129, keys: "q4_0", softcap: 3 },
  {
    tokens: 17,
    heads: 4,
    kvHeads: 4,
    headDim: 32,
    pageSize: 16,
    position: 65,
    keys: "q8_0",
    values: "q4_0",
    window: 7,
  },
  { tokens: 9, heads: 4, kvHeads: 1, headDim: 64, pageSize: 32, position: 33, keys: "f16", values: "q8_0", window: 30 },
  { tokens: 9, heads: 3, kvHeads: 1, headDim: 64, pageSize: 16, position: 33, keys: "q4_0", values: "f32" },
  { tokens: 70, heads: 4, kvHeads: 2, headDim: 64, pageSize: 64, position: 90, keys: "f16", int8: true },
  { tokens: 64, heads: 3, kvHeads: 1, headDim: 24, pageSize: 16, position: 0, keys: "f32", int8: true, window: 40 },
  {
    tokens: 65,
    heads: 2,
    kvHeads: 1,
    headDim: 128,
    pageSize: 32,
    position: 33,
    keys: "q8_0",
    values: "q4_0",
    int8: true,
    softcap: 9,
  },
];

function attentionCases(): OpCase[] {
  const random = new Random(41);
  return shapes.map((s): OpCase => {
    const scale = 1 / Math.sqrt(s.headDim);
    const options = { scale, window: s.window, softcap: s.softcap, activations: s.int8 ? "i8" : "f32" } as const;
    const isCoded = valuesOf(s) === "q8_0" || valuesOf(s) === "q4_0";
    const caches = ([q, keyRows, valueRows, pages]: Tensor[]): [Tensor, Tensor] => [
      ops.kvAppend(keyRows, pages, emptyCache(q.backend, s, "kv_keys"), { position: 0 }),
      ops.kvAppend(valueRows, pages, emptyCache(q.backend, s, "kv_values"), { position: 0 }),
    ];
    return {
      name: describe(s),
      inputs: [
        random.tensor([s.tokens, s.heads, s.headDim], 3),
        rowsFor(random, s),
        rowsFor(random, s),
        pageTable(random, pageCount(s)),
      ],
      call: (inputs) => [ops.attention(inputs[0], ...caches(inputs), inputs[3], { ...options, position: s.position })],
      expect: (inputs) => [expected(s, Math.fround(scale), inputs)],
      quantized: s.headDim % 32 !== 0
        ? undefined
        : (inputs) =>
          ops.attention(inputs[0], ...caches(inputs), inputs[3], { ...options, position: s.position, quantized: true }),
      // Weights have 15 bits where values are quantised, in int8 7 or 8.
      tolerance: s.int8 ? { rms: 0.025 } : isCoded ? { abs: 3e-4, rel: 1e-5 } : { abs: 4e-6, rel: 1e-5 },
      dense: [3],
      chunks: (inputs) => {
        const [k, v] = caches(inputs);
        const part = (t: number, count: number) =>
          ops.attention(inputs[0].narrow(0, t, count), k, v, inputs[3], { ...options, position: s.position + t });
        if (s.int8) return [part(0, 32), part(32, s.tokens - 32)];
        return Array.from({ length: s.tokens }, (_, t) => part(t, 1));
      },
    };
  });
}

/** All positions at once, then the last `tokens` again, as after a rewind. */
function appendCases(): OpCase[] {
  const random = new Random(42);
  return shapes.flatMap((s) => [{ ...s, values: s.keys }, { ...s, keys: valuesOf(s) }]).map((s, i): OpCase => {
    const [layout, as] = i % 2 === 0 ? ["kv_keys", "keys"] as const : ["kv_values", "values"] as const;
    const row = s.kvHeads * s.headDim;
    const count = s.position + s.tokens;
    return {
      name: `${describe(s)} ${as}`,
      inputs: [random.tensor([s.tokens, s.kvHeads, s.headDim]), rowsFor(random, s), pageTable(random, pageCount(s))],
      call: ([x, before, pages]) => {
        const cache = ops.kvAppend(before, pages, emptyCache(x.backend, s, layout), { position: 0 });
        return [rowsOfCache(s, ops.copy(ops.kvAppend(x, pages, cache, { position: s.position })), pages, count)];
      },
      expect: ([x, before]) => {
        const rows = Float32Array.from(before);
        rows.set(Float32Array.from(x), s.position * row);
        return [storedRows(s, rows, as).all];
      },
      tolerance: exact,
      dense: [2],
    };
  });
}

/** The first rows of a cache [pages, kvHeads, pageSize, headDim] in order: [count, kvHeads, headDim]. */
function rowsOfCache({ kvHeads, pageSize, headDim }: Shape, cache: Tensor, pages: Tensor, count: number): Tensor {
  const [values, table] = [cache.toNumbers(), pages.toNumbers()];
  const out = new Float32Array(count * kvHeads * headDim);
  for (let j = 0; j < count; j++) {
    for (let head = 0; head < kvHeads; head++) {
      const page = table[Math.floor(j / pageSize)] * kvHeads + head;
      const from = (page * pageSize + (j % pageSize)) * headDim;
      for (let i = 0; i < headDim; i++) out[(j * kvHeads + head) * headDim + i] = values[from + i];
    }
  }
  return Tensor.from(cache.backend, out, [count, kvHeads, headDim]);
}

/** Cases by op. */
export const attention: Record<"kv_append" | "attention", CaseMaker> = {
  kv_append: appendCases,
  attention: attentionCases,
};
