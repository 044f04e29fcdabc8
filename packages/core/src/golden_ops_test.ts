import { assert } from "@std/assert";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import { openTestBackend, testLevels } from "../testdata/backend.ts";
import { readTensors, type Tensors, testdata } from "../testdata/tensors.ts";
import { goldenPath, skipWithout } from "../../../tools/testing/golden.ts";
import type { Backend } from "./backend.ts";
import { type DType, dtypes } from "./dtype.ts";
import { KvCache } from "./kv_cache.ts";
import { ropeFrequencies, ropeParameters } from "./nn/rope.ts";
import * as ops from "./ops.ts";
import { Tensor } from "./tensor.ts";
import { tidy } from "./tidy.ts";

interface Output {
  shape: number[];
  dtype: string;
  f32_noise_maxabs: number;
  ref_rms: number;
  hf_f32_angles_maxabs?: number;
}

interface Case {
  key: string;
  op: string;
  inputs: Record<string, { shape: number[]; dtype: string }>;
  outputs: Record<string, Output>;
  // deno-lint-ignore no-explicit-any
  params: any;
}

type In = Record<string, Tensor>;
type Run = (inputs: In, params: Case["params"], backend: Backend) => Record<string, Tensor>;

const unary = (op: (x: Tensor) => Tensor): Run => ({ x }) => ({ out: op(x) });
const wide = (w: Tensor): Tensor => ops.packWeight(w);

/** Golden x is [heads, T, headDim]; ours is [T, heads, headDim]. */
const rope: Run = ({ x, positions }, params, backend) => {
  const { invFreq, attentionFactor } = ropeFrequencies(
    ropeParameters({
      head_dim: params.head_dim,
      rope_theta: params.theta,
      rope_scaling: params.rope_scaling ?? null,
      partial_rotary_factor: params.rope_dim / params.head_dim,
      max_position_embeddings: params.max_position_embeddings,
    }),
    params.seq_len,
  );
  const inverse = Tensor.from(backend, invFreq, [invFreq.length]);
  const interleaved = String(params.layout).startsWith("interleaved");
  const options = { position: 0, positions, interleaved, scale: attentionFactor };
  return { out: ops.rope(x.transpose(0, 1), inverse, options).transpose(0, 1) };
};

/** Golden layout is [heads, T, headDim]; keys and values go through the cache. */
const attention: Run = ({ q, k, v }, params, backend) => {
  const [kvHeads, tokens, headDim] = k.shape as number[];
  const cache = new KvCache(backend, {
    layers: 1,
    kvHeads,
    headDim,
    capacity: tokens,
    pageSize: 16,
    keyDtype: "f32",
    valueDtype: "f32",
  });
  try {
    const [layer] = cache.layers;
    ops.kvAppend(k.transpose(0, 1), cache.pages, layer.k, { position: 0 });
    ops.kvAppend(v.transpose(0, 1), cache.pages, layer.v, { position: 0 });
    const out = ops.attention(q.transpose(0, 1), layer.k, layer.v, cache.pages, {
      position: params.offset,
      scale: params.scale,
      window: params.sliding_window ?? 0,
      softcap: params.logit_softcap ?? 0,
    });
    return { out: out.transpose(0, 1) };
  } finally {
    cache[Symbol.dispose]();
  }
};

const linear: Run = ({ x, w, b }) => ({ out: ops.linear(x, wide(w), b) });

/** Golden ops that the op table covers. */
const runs: Record<string, Run> = {
  softmax: unary(ops.softmax),
  softmax_allinf_row: unary(ops.softmax),
  softmax_scaled: ({ x }, { scale }) => ({ out: ops.softmax(x, { scale }) }),
  causal_softmax: ({ x }, { offset }) => ({ out: ops.causalSoftmax(x, { offset }) }),
  log_softmax: unary(ops.logSoftmax),
  cross_entropy: ({ logits, target }) => ({ out: ops.crossEntropy(logits, target) }),
  argmax: ({ x }) => ({ index: ops.argmax(x) }),
  topk: ({ x }, { k }) => ({ ...ops.topk(x, k) }),
  softmax_topk: ({ x }, { k }) => {
    const { weights, indices } = ops.softmaxTopk(x, k);
    return { weights_unnormalised: weights, indices, weights: ops.softmaxTopk(x, k, { normalized: true }).weights };
  },
  rmsnorm: ({ x, w }, { eps }) => ({ out: ops.rmsnorm(x, w, { eps }) }),
  rmsnorm_offset1: ({ x, w }, { eps }) => ({ out: ops.rmsnorm(x, w, { eps, offset: 1 }) }),
  rmsnorm_residual: ({ x, res, w }, { eps }) => {
    const { sum, out } = ops.rmsnormResidual(x, res, w, { eps });
    return { h: sum, out };
  },
  layernorm: ({ x, w, b }, { eps }) => ({ out: ops.layernorm(x, w, b, { eps }) }),
  layernorm_nobias: ({ x, w }, { eps }) => ({ out: ops.layernorm(x, w, undefined, { eps }) }),
  l2norm: ({ x }, { eps }) => ({ out: ops.l2norm(x, { eps }) }),
  gelu_erf: unary(ops.geluErf),
  gelu_tanh: unary(ops.geluTanh),
  quick_gelu: unary(ops.quickGelu),
  silu: unary(ops.silu),
  sigmoid: unary(ops.sigmoid),
  relu: unary(ops.relu),
  relu2: unary(ops.relu2),
  tanh: unary(ops.tanh),
  softplus: unary(ops.softplus),
  exp_neg: ({ x }) => {
    const magnitude = ops.add(ops.relu(x), ops.relu(ops.mulConst(x, -1)));
    return { out: ops.exp(ops.mulConst(magnitude, -1)) };
  },
  softcap: ({ x }, { cap }) => ({ out: ops.softcap(x, cap) }),
  swiglu: ({ gate, up }) => ({ out: ops.swiglu(gate, up) }),
  geglu_tanh: ({ gate, up }) => ({ out: ops.gegluTanh(gate, up) }),
  swiglu_packed: ({ x }) => {
    const n = (x.shape[1] as number) / 2;
    return { out: ops.swiglu(x.narrow(1, 0, n), x.narrow(1, n, n)) };
  },
  add_broadcast_row: ({ a, b }) => ({ out: ops.add(a, b) }),
  mul: ({ a, b }) => ({ out: ops.mul(a, b) }),
  matmul: ({ a, b }) => ({ out: ops.matmul(a, b) }),
  bmm: ({ a, b }) => ({ out: ops.matmul(a, b) }),
  linear,
  linear_bf16_weight: linear,
  linear_f16_weight: linear,
  embedding: ({ ids, table }) => ({ out: ops.embedding(ids, table) }),
  rope_half: rope,
  rope_interleaved: rope,
  rope_partial: rope,
  rope_linear: rope,
  rope_dynamic_ntk: rope,
  rope_llama3: rope,
  rope_yarn: rope,
  sdpa_causal: attention,
};

const golden = goldenPath("ops/ops.json");
const sources = [
  { name: "this repository", path: testdata("ops.json"), casesMin: 20 },
  { name: "the reference", path: golden, casesMin: 130 },
];
const quantFile = goldenPath("quant/gguf_blocks.safetensors");
const names: Record<string, DType> = { float32: "f32", int32: "i32", bf16: "bf16", f16: "f16" };

function checkCase(backend: Backend, data: Tensors, one: Case): void {
  tidy(() => {
    const inputs: In = {};
    for (const [name, { shape, dtype }] of Object.entries(one.inputs)) {
      const bytes = data.get(`${one.key}.in.${name}`)!.slice();
      const known = names[dtype];
      const values = known === "f32"
        ? new Float32Array(bytes.buffer)
        : known === "i32"
        ? new Int32Array(bytes.buffer)
        : bytes;
      inputs[name] = Tensor.from(backend, values, shape, known);
    }
    const outputs = runs[one.op](inputs, one.params, backend);
    for (const [name, tensor] of Object.entries(outputs)) {
      const { f32_noise_maxabs: noise, ref_rms: rms, hf_f32_angles_maxabs: angles, dtype } = one.outputs[name];
      const bytes = data.get(`${one.key}.${name}`)!.slice();
      const expected = dtype === "int32" ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer);
      // The rule of the golden README; rope with frequencies stored as f32 has angles like Hugging Face's.
      const tolerance = dtype === "int32" ? 0 : Math.max(8 * noise, 8e-6 * Math.max(1, rms), 2 * (angles ?? 0));
      const actual = tensor.toNumbers();
      assert(actual.length === expected.length, `${one.key}: ${actual.length} values`);
      for (let i = 0; i < expected.length; i++) {
        const fits = actual[i] === expected[i] || Math.abs(actual[i] - expected[i]) <= tolerance;
        assert(
          fits,
          `${one.key} ${name}[${i}] at ${backend.device.level}: ${actual[i]} is not ${expected[i]} (±${tolerance})`,
        );
      }
    }
  });
}

/** Block types: unpacking after packing, and linear by f32 activations, against the reference's decoder. */
function checkQuant(backend: Backend, data: Tensors): number {
  let checked = 0;
  for (const name of data.names.filter((name) => /\.(quant|random)\.bytes$/.test(name))) {
    const [type, kind] = name.split(".");
    const dtype = type.toLowerCase() as DType;
    const expected = data.floats(`${type}.${kind}.deq`);
    const bytes = data.get(name)!.slice();
    const rows = dtypes[dtype].blockElements === 1
      ? bytes.length / 2 / 512
      : bytes.length / dtypes[dtype].blockBytes * dtypes[dtype].blockElements / 512;
    tidy(() => {
      const weight = Tensor.from(backend, bytes, [rows, 512], dtype);
      const packed = ops.packWeight(weight);
      for (const tensor of [ops.copy(weight, { dtype: "f32" }), ops.copy(packed)]) {
        const actual = tensor.toFloat32Array();
        let most = 0;
        for (const x of expected) most = Math.max(most, Math.abs(x));
        actual.forEach((x, i) =>
          assert(Math.abs(x - expected[i]) <= 3e-7 * most, `${name} [${i}]: ${x} is not ${expected[i]}`)
        );
      }
      if (kind !== "random") return;
      const x = Tensor.from(backend, data.floats("matvec.x"), [2, 512]);
      const y = ops.linear(x, packed).toFloat32Array();
      const wanted = data.floats(`${type}.matvec`);
      const scale = Math.sqrt(wanted.reduce((sum, v) => sum + v * v, 0) / wanted.length);
      y.forEach((v, i) =>
        assert(Math.abs(v - wanted[i]) <= 2e-5 * Math.max(1, scale), `${type} matvec ${v} is not ${wanted[i]}`)
      );
    });
    checked++;
  }
  return checked;
}

for (const level of await testLevels()) {
  describe(`golden ops at ${level}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await openTestBackend({ level, activations: "f32" });
    });
    afterAll(() => backend[Symbol.dispose]());

    for (const { name, path, casesMin } of sources) {
      it(`of ${name}`, { skip: skipWithout(path) }, () => {
        const { cases } = JSON.parse(Deno.readTextFileSync(path!)) as { cases: Case[] };
        const data = readTensors(path!.replace(/json$/, "safetensors"));
        const covered = cases.filter(({ op }) => op in runs);
        for (const one of covered) checkCase(backend, data, one);
        assert(covered.length >= casesMin, `${covered.length} cases`);
      });
    }

    it("of block types", { skip: skipWithout(quantFile) }, () => {
      assert(checkQuant(backend, readTensors(quantFile!)) >= 20);
    });
  });
}
