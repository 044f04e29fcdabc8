import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import { leakChecked, openTestBackend } from "../testdata/backend.ts";
import type { Backend } from "./backend.ts";
import { capture, type CaptureRegisters, defaultPasses, type Program } from "./capture.ts";
import { CommandWriter } from "./command.ts";
import { Random } from "./conformance/case.ts";
import { MllmError } from "./errors.ts";
import { KvCache } from "./kv_cache.ts";
import * as ops from "./ops.ts";
import type { Scalar } from "./scalar.ts";
import { Tensor } from "./tensor.ts";
import { tidy } from "./tidy.ts";

const random = new Random(5);
const [hidden, heads, kvHeads, headDim, vocab, inner] = [64, 4, 2, 32, 50, 96];

/** Random weights [n, k] in q8_0. */
function q8Bytes(rng: Random, n: number, k: number): Uint8Array<ArrayBuffer> {
  const bytes = rng.bytes(n * k / 32 * 34);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += 34) view.setFloat16(at, 0.002 * (0.5 + rng.next()), true);
  return bytes;
}

/** Weights of one small layer, and code for it that runs eagerly and captured. */
class Layer {
  readonly weights: Record<string, Tensor>;
  readonly cache: KvCache;

  constructor(readonly backend: Backend, quantised: boolean) {
    const packed = (n: number, k: number) =>
      tidy(() => {
        if (quantised) return ops.packWeight(Tensor.from(backend, q8Bytes(random, n, k), [n, k], "q8_0"));
        return ops.packWeight(Tensor.from(backend, Float32Array.from(random.tensor([n, k], 0.2).values), [n, k]));
      });
    const vector = (n: number) => Tensor.from(backend, Float32Array.from(random.tensor([n], 1).values), [n]);
    this.weights = {
      table: packed(vocab, hidden),
      qkv: packed((heads + 2 * kvHeads) * headDim, hidden),
      bias: vector((heads + 2 * kvHeads) * headDim),
      o: packed(hidden, heads * headDim),
      gate: packed(inner, hidden),
      up: packed(inner, hidden),
      down: packed(hidden, inner),
      norm1: vector(hidden),
      norm2: vector(hidden),
      norm3: vector(hidden),
      inv: Tensor.from(backend, Float32Array.from({ length: headDim / 2 }, (_, i) => 1e4 ** (-i / 8)), [headDim / 2]),
    };
    const types = quantised ? { keyDtype: "q8_0", valueDtype: "q4_0" } as const : {};
    this.cache = new KvCache(backend, { layers: 1, kvHeads, headDim, capacity: 64, pageSize: 16, ...types });
  }

  forward(ids: Tensor, position: Scalar, last: Scalar): { logits: Tensor; hidden: Tensor } {
    const w = this.weights;
    const tokens = ids.shape[0];
    const eps = 1e-6;
    const x = ops.embedding(ids, w.table);
    const qkv = ops.linear(ops.rmsnorm(x, w.norm1, { eps }), w.qkv, w.bias).reshape(
      tokens,
      heads + 2 * kvHeads,
      headDim,
    );
    const q = ops.rope(qkv.narrow(1, 0, heads), w.inv, { position });
    const k = ops.rope(qkv.narrow(1, heads, kvHeads), w.inv, { position });
    const [{ k: keys, v: values }] = this.cache.layers;
    ops.kvAppend(k, this.cache.pages, keys, { position });
    ops.kvAppend(qkv.narrow(1, heads + kvHeads, kvHeads), this.cache.pages, values, { position });
    const a = ops.attention(q, keys, values, this.cache.pages, { position, scale: 0.25 });
    const h = ops.add(x, ops.linear(a.reshape(tokens, -1), w.o));
    const n = ops.rmsnorm(h, w.norm2, { eps });
    ops.relu(n);
    const m = ops.mul(ops.silu(ops.linear(n, w.gate)), ops.linear(n, w.up));
    const y = ops.add(h, ops.linear(m, w.down));
    const final = ops.rmsnorm(y, w.norm3, { eps });
    return { logits: ops.linear(ops.takeRows(final, { start: last, count: 1 }), w.table), hidden: y };
  }

  eager(ids: readonly number[], position: number): { logits: Float32Array; hidden: Float32Array } {
    return tidy(() => {
      const input = Tensor.from(this.backend, Int32Array.from(ids), [ids.length]);
      const { logits, hidden } = this.forward(input, position, ids.length - 1);
      return { logits: logits.toFloat32Array(), hidden: hidden.toFloat32Array() };
    });
  }

  capture(tokensMax: number, passes = defaultPasses): Program {
    const inputs = { ids: { dtype: "i32", shape: ["tokens"] } } as const;
    return capture(
      this.backend,
      { tokensMax, inputs },
      ({ ids }, { position, last }) => this.forward(ids, position, last),
      {
        passes,
      },
    );
  }

  free(): void {
    for (const tensor of Object.values(this.weights)) tensor.free();
    this.cache[Symbol.dispose]();
  }
}

function replay(
  program: Program,
  ids: readonly number[],
  position: number,
): { logits: Float32Array; hidden: Float32Array } {
  program.inputs.ids.write(Int32Array.from(ids));
  program.run({ tokens: ids.length, position });
  return { logits: program.output("logits").slice(), hidden: program.output("hidden", ids.length).slice() };
}

describe("capture", () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openTestBackend();
  });
  afterAll(() => backend[Symbol.dispose]());

  const check = leakChecked(() => backend);

  const ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];

  for (const quantised of [false, true]) {
    check(`replays the bits of eager code (${quantised ? "q8_0, i8 activations" : "f32"})`, () => {
      const layer = new Layer(backend, quantised);
      const whole = layer.eager(ids, 0);
      const step = layer.eager([7], ids.length);
      for (const passes of [[], ...defaultPasses.map((_, i) => defaultPasses.slice(0, i + 1))]) {
        using program = layer.capture(16, passes);
        assertEquals(replay(program, ids, 0), whole);
        assertEquals(replay(program, [7], ids.length), step);
        // The same prompt in chunks gives the same last row.
        replay(program, ids.slice(0, 4), 0);
        assertEquals(replay(program, ids.slice(4), 4).logits, whole.logits);
      }
      using decode = layer.capture(1);
      assertEquals(replay(decode, [7], ids.length), step);
      layer.free();
    });
  }

  check("drops dead code, fuses, shares memory, and says so", () => {
    const layer = new Layer(backend, false);
    using plain = layer.capture(16, []);
    using program = layer.capture(16);
    const count = (p: Program, op: string) => p.commands.filter((command) => command.op === op).length;
    assertEquals([count(plain, "relu"), count(program, "relu")], [1, 0]);
    assertEquals([count(program, "silu"), count(program, "swiglu")], [0, 1]);
    assertEquals([count(program, "add"), count(program, "rmsnorm_residual")], [0, 2]);
    assert(program.arenaBytes < plain.arenaBytes);
    assert(program.arenaBytes >= program.lowerBoundBytes && program.arenaBytes <= 1.25 * program.lowerBoundBytes);
    assertEquals(program.passes.map(({ name }) => name), ["capture", "dead_code", "fuse", "gather", "in_place"]);
    assert(program.commands.every(({ text, reason }) => text.length > 0 && reason.length > 0));
    layer.free();
  });

  check("quantises activations in the op that makes them", () => {
    const layer = new Layer(backend, true);
    using plain = layer.capture(16, []);
    using program = layer.capture(16);
    const count = (p: Program) => p.commands.filter(({ op }) => op === "quantize_rows").length;
    // What is left: the one row that is taken for the head.
    assertEquals([count(plain), count(program)], [5, 1]);
    layer.free();
  });

  check("leaves a norm of heads alone where a product reads them as rows", () => {
    const inputs = { x: { dtype: "f32", shape: ["tokens", 2 * 32] } } as const;
    const data = Float32Array.from(random.tensor([3, 2 * 32]).values);
    using weight = tidy(() => Tensor.from(backend, Float32Array.from(random.tensor([32]).values), [32]));
    using matrix = tidy(() => ops.packWeight(Tensor.from(backend, q8Bytes(random, 64, 64), [64, 64], "q8_0")));
    const build = (x: Tensor) => {
      const heads = ops.rmsnorm(x.reshape(x.shape[0], 2, 32), weight, { eps: 1e-6 });
      return ops.linear(ops.quantizeRows(heads.reshape(x.shape[0], 64)), matrix);
    };
    const eager = tidy(() => build(Tensor.from(backend, data, [3, 64])).toFloat32Array());
    using program = capture(backend, { tokensMax: 4, inputs }, ({ x }) => ({ y: build(x) }));
    assertEquals(program.commands.map(({ op }) => op), ["rmsnorm", "quantize_rows", "linear"]);
    program.inputs.x.write(data);
    program.run({ tokens: 3, position: 0 });
    assertEquals(program.output("y", 3).slice(), eager);
  });

  for (const type of ["f32", "q8_0"] as const) {
    check(`gathers the products of one input, where nothing between writes it (${type})`, () => {
      const inputs = { x: { dtype: "f32", shape: ["tokens", width] } } as const;
      const data = Float32Array.from(random.tensor([3, width]).values);
      const values = type === "f32"
        ? Float32Array.from(random.tensor([width, width]).values)
        : q8Bytes(random, width, width);
      using matrix = tidy(() => ops.packWeight(Tensor.from(backend, values, [width, width], type)));
      const cases = [[false, 4], [true, 4], [false, 32], [false, 33]] as const;
      for (const [overwritten, tokensMax] of cases) {
        const isMoved = !overwritten && tokensMax <= 32; // many rows are no single job
        const build = (x: Tensor) => {
          const own = ops.mulConst(x, 0.5);
          const first = ops.linear(own, matrix);
          const sum = ops.add(own, x, { out: overwritten ? own : undefined });
          return [first, sum, ops.linear(own, matrix)];
        };
        const eager = tidy(() => build(Tensor.from(backend, data, [3, width])).map((t) => t.toFloat32Array()));
        const named = ({ x }: { x: Tensor }) => Object.fromEntries(build(x).map((t, i) => [`y${i}`, t]));
        using program = capture(backend, { tokensMax, inputs }, named);
        const order = program.commands.map(({ op }) => op).filter((op) => op === "linear" || op === "add");
        assertEquals(order, isMoved ? ["linear", "linear", "add"] : ["linear", "add", "linear"]);
        assertEquals(program.passes.find(({ name }) => name === "gather")!.changes, isMoved ? 1 : 0);
        program.inputs.x.write(data);
        program.run({ tokens: 3, position: 0 });
        assertEquals(eager.map((_, i) => program.output(`y${i}`, 3).slice()), eager);
      }
    });
  }

  check("measures its commands", () => {
    const layer = new Layer(backend, false);
    const program = layer.capture(16);
    layer.free();
    program.profile();
    for (let i = 0; i < 3; i++) program.run({ tokens: 2, position: 0 });
    const rows = program.profile();
    assertEquals(rows.length, program.commands.length);
    assert(rows.every(({ calls }) => calls === 3));
    program.run({ tokens: 1, position: 2 });
    const more = program.profile();
    const [three, four] = [rows, more].map((list) => list.find(({ op }) => op === "linear")!);
    assertEquals(three.kind, `f32 [${(heads + 2 * kvHeads) * headDim}, ${hidden}]`);
    const perRow = (heads + 2 * kvHeads) * headDim * (2 * hidden + 1);
    assertEquals([three.cost.operations, four.cost.operations], [3 * 2 * perRow, 3 * 2 * perRow + perRow]);
    assertEquals(four.cost.weightBytes, three.cost.weightBytes / 3 * 4);
    program[Symbol.dispose]();
  });

  check("runs without blocking", async () => {
    const layer = new Layer(backend, true);
    const program = layer.capture(16);
    const expected = replay(program, ids, 0).logits;
    program.output("logits").fill(0);
    const running = program.runAsync({ tokens: ids.length, position: 0 });
    assertThrows(() => program.run({ tokens: 1, position: 0 }), MllmError, "running");
    assertThrows(() => program[Symbol.dispose](), MllmError, "running");
    await running;
    assertEquals(program.output("logits").slice(), expected);
    program.inputs.ids.write([-1]);
    await assertRejects(() => program.runAsync({ tokens: 1, position: 0 }), MllmError);
    program[Symbol.dispose]();
    program[Symbol.dispose]();
    assertThrows(() => program.output("logits"), MllmError, "disposed");
    layer.free();
  });

  check("refuses to write into memory that was transferred", async () => {
    const layer = new Layer(backend, false);
    const program = layer.capture(16);
    replay(program, ids, 0);
    const view = program.output("logits");
    const moved = structuredClone(view, { transfer: [view.buffer] });
    const before = moved.slice();
    const options = { tokens: 1, position: 0 };
    assertThrows(() => program.run(options), MllmError, "transferred");
    await assertRejects(() => program.runAsync(options), MllmError, "transferred");
    assertEquals(moved, before);
    program[Symbol.dispose]();
    layer.free();
  });

  it("keeps its backend open until asynchronous runs have ended", async () => {
    const own = await openTestBackend();
    const layer = new Layer(own, false);
    const programs = [layer.capture(16), layer.capture(16), layer.capture(16)];
    const expected = replay(programs[0], ids, 0).logits;
    for (const program of programs) program.inputs.ids.write(Int32Array.from(ids));
    const running = programs.map((program) => program.runAsync({ tokens: ids.length, position: 0 }));
    const error = assertThrows(() => own[Symbol.dispose](), MllmError, "running");
    assertEquals([error.code, own.isClosed], ["invalid_argument", false]);
    await Promise.all(running);
    for (const program of programs) {
      assertEquals(program.output("logits").slice(), expected);
      program[Symbol.dispose]();
    }
    const failing = layer.capture(16);
    failing.inputs.ids.write([-1]);
    await assertRejects(() => failing.runAsync({ tokens: 1, position: 0 }), MllmError);
    failing[Symbol.dispose]();
    layer.free();
    own[Symbol.dispose]();
    assert(own.isClosed);
  });

  check("holds constants that are made inside", () => {
    const inputs = { x: { dtype: "f32", shape: [3] } } as const;
    using program = capture(backend, { tokensMax: 1, inputs }, ({ x }) => ({
      y: ops.add(x, Tensor.from(backend, [1, 2, 3], [3])),
    }));
    program.inputs.x.write([10, 20, 30]);
    program.run({ tokens: 1, position: 0 });
    assertEquals([...program.output("y")], [11, 22, 33]);
    const failing = () =>
      capture(backend, { tokensMax: 1, inputs }, ({ x }) => {
        ops.add(x, Tensor.from(backend, [1, 2, 3], [3]));
        throw new MllmError("invalid_argument", "of the caller");
      });
    assertThrows(failing, MllmError, "of the caller");
  });

  check("tells eager ops that a program has written a tensor", () => {
    const identity = new Uint8Array(32 * 34);
    for (let i = 0; i < 32; i++) {
      new DataView(identity.buffer).setFloat16(i * 34, 1, true);
      identity[i * 34 + 2 + i] = 1;
    }
    using w = tidy(() => ops.packWeight(Tensor.from(backend, identity, [32, 32], "q8_0")));
    using h = Tensor.from(backend, new Float32Array(32).fill(1), [1, 32]);
    const inputs = { y: { dtype: "f32", shape: [1, 32] } } as const;
    using program = capture(backend, { tokensMax: 1, inputs }, ({ y }) => {
      ops.add(h, y, { out: h });
      return { copy: ops.copy(y) };
    });
    program.inputs.y.write(new Float32Array(32).fill(2));
    for (const expected of [3, 5]) {
      program.run({ tokens: 1, position: 0 });
      using product = ops.linear(h, w); // quantises h, and remembers that
      assertEquals([...product.toFloat32Array()].map(Math.round), new Array(32).fill(expected));
    }
  });

  check("fuses no sum that is the weight of its norm, too", () => {
    const inputs = { x: { dtype: "f32", shape: [4] } } as const;
    const rows = [[], defaultPasses].map((passes) => {
      using program = capture(backend, { tokensMax: 1, inputs }, ({ x }) => {
        const sum = ops.add(x, x);
        return { y: ops.rmsnorm(sum, sum, { eps: 1e-6 }) };
      }, { passes });
      program.inputs.x.write([1, 2, 3, 4]);
      program.run({ tokens: 1, position: 0 });
      return [...program.output("y")];
    });
    assertEquals(rows[1], rows[0]);
  });

  check("says that an arena does not fit", () => {
    const error = assertThrows(() => backend.compile(new CommandWriter(1), 0, 2 ** 45, 1), MllmError, "do not fit");
    assertEquals(error.code, "out_of_memory");
    assertEquals(assertThrows(() => backend.compile(new CommandWriter(1), 1, 0, 1), MllmError).code, "unsupported");
  });

  check("checks what it is run with", () => {
    const layer = new Layer(backend, false);
    const program = layer.capture(16);
    assertEquals(program.contextMax, 64);
    assertThrows(() => program.run({ tokens: 17, position: 0 }), MllmError, "1..16");
    assertThrows(() => program.run({ tokens: 0, position: 0 }), MllmError, "1..16");
    assertThrows(() => program.run({ tokens: 1, position: 64 }), MllmError, "context of 64");
    assertThrows(() => program.run({ tokens: 1, position: -1 }), MllmError, "context");
    assertThrows(() => program.output("nothing"), MllmError, "logits");
    assertThrows(() => program.outputInts("logits"), MllmError, "f32");
    assertThrows(() => program.inputs.ids.write(new Int32Array(17)), MllmError, "ids");
    program[Symbol.dispose]();
    layer.free();
  });

  check("explains misuse", () => {
    const inputs = { x: { dtype: "f32", shape: ["tokens", 4] } } as const;
    const bad = (fn: (x: Tensor, r: CaptureRegisters) => Tensor) => () =>
      capture(backend, { tokensMax: 8, inputs }, ({ x }, registers) => ({ y: fn(x, registers) }));
    using outside = Tensor.from(backend, [1, 2, 3, 4], [4]);
    assertThrows(bad((x) => (x.toFloat32Array(), x)), MllmError, "no values yet");
    assertThrows(bad(() => outside), MllmError, "depends on no input");
    assertThrows(bad((x) => x.narrow(0, 0, 1)), MllmError, "takeRows");
    assertThrows(bad((x) => ops.copy(x.transpose(0, 1))), MllmError, "outermost");
    assertThrows(
      bad((_, { position }) => ops.takeRows(outside.reshape(2, 2), { start: position, count: 1 })),
      MllmError,
      "position",
    );
    let leaked: Tensor | undefined;
    const program = capture(backend, { tokensMax: 8, inputs }, ({ x }) => ({ y: leaked = ops.silu(x) }));
    assertThrows(() => ops.silu(leaked!), MllmError);
    program[Symbol.dispose]();
    assertThrows(() => capture(backend, { tokensMax: 0, inputs }, ({ x }) => ({ x })), MllmError, "tokensMax");
    const returned = (value: (x: Tensor) => unknown) => () =>
      capture(backend, { tokensMax: 8, inputs }, ({ x }) => value(x) as Record<string, Tensor>);
    assertThrows(returned((x) => x), MllmError, "a tensor without a name. Return the outputs as an object of tensors");
    assertThrows(returned((y) => Promise.resolve({ y })), MllmError, "the function returned a promise");
    assertThrows(returned(() => undefined), MllmError, "the function returned undefined");
    assertThrows(returned(() => null), MllmError, "the function returned null");
    assertThrows(returned((y) => ({ y, z: 5 })), MllmError, 'output "z" is no tensor');
  });

  check("names the op that a backend lacks", () => {
    using weight = tidy(() => ops.packWeight(Tensor.zeros(backend, [4, 32]))).named("head");
    const inputs = { x: { dtype: "f32", shape: ["tokens", 32] } } as const;
    const error = assertThrows(
      () => capture(backend, { tokensMax: 8, inputs }, ({ x }) => ({ y: ops.linear(ops.quantizeRows(x), weight) })),
      MllmError,
    );
    assertEquals(error.code, "unsupported");
    for (const part of ["linear", "q8a [tokens<=8, 32]", '"head"', "f32 packed [4, 32]", backend.device.level]) {
      assert(error.message.includes(part), error.message);
    }
  });

  check("copies outputs that are views or inputs", () => {
    const inputs = { x: { dtype: "f32", shape: ["tokens", 4] } } as const;
    using program = capture(
      backend,
      { tokensMax: 3, inputs },
      ({ x }) => ({ same: x, part: ops.mulConst(x, 2).narrow(1, 1, 2) }),
    );
    program.inputs.x.write([1, 2, 3, 4, 5, 6, 7, 8]);
    program.run({ tokens: 2, position: 0 });
    assertEquals([...program.output("same", 2)], [1, 2, 3, 4, 5, 6, 7, 8]);
    assertEquals([...program.output("part", 2)], [4, 6, 12, 14]);
  });

  check("keeps the bits of random programs", () => {
    const rng = new Random(77);
    for (let round = 0; round < 60; round++) {
      const seed = rng.int(1e9);
      const build = (x: Tensor) => randomProgram(new Random(seed), x, w, matrix);
      const data = Float32Array.from(rng.tensor([5, width], 2).values);
      using w = Tensor.from(backend, Float32Array.from(rng.tensor([width], 1).values), [width]);
      using blocks = Tensor.from(backend, q8Bytes(rng, width, width), [width, width], "q8_0");
      using matrix = ops.packWeight(blocks);
      const eager = tidy(() => build(Tensor.from(backend, data, [5, width])).map((t) => t.toFloat32Array()));
      const inputs = { x: { dtype: "f32", shape: ["tokens", width] } } as const;
      using program = capture(
        backend,
        { tokensMax: 7, inputs },
        ({ x }) => Object.fromEntries(build(x).map((tensor, i) => [`y${i}`, tensor])),
      );
      for (let again = 0; again < 2; again++) {
        program.inputs.x.write(data);
        program.run({ tokens: 5, position: 0 });
        eager.forEach((values, i) => assertEquals(program.output(`y${i}`, 5).slice(), values, `round ${round} y${i}`));
      }
    }
  });
});

/** Columns of the random programs. */
const width = 32;

/** Random code over a pool of tensors [tokens, width], with views and in-place ops, returning some of them. */
function randomProgram(rng: Random, x: Tensor, w: Tensor, matrix: Tensor): Tensor[] {
  const pool = [ops.mulConst(x, 0.5), ops.silu(x)];
  const pick = () => pool[rng.int(pool.length)];
  for (let i = 0; i < 5 + rng.int(25); i++) {
    const [a, b] = [pick(), pick()];
    const makers = [
      () => ops.add(a, b),
      () => ops.mul(ops.silu(a), b),
      () => ops.rmsnorm(ops.add(a, b), w, { eps: 1e-6 }),
      () => ops.softmax(a),
      () => ops.mulConst(a, 0.75, { out: a === pool[0] ? undefined : a }),
      () => ops.add(a, b, { out: b }),
      () => ops.add(a.reshape(-1, 4, 8), b.reshape(-1, 4, 8)).reshape(-1, width),
      () => ops.copy(a.reshape(-1, 4, 8).permute(0, 2, 1)).reshape(-1, width),
      () => ops.rmsnormResidual(a, b, w, { eps: 1e-6 }).out,
      () => ops.swiglu(a, b),
      () => ops.linear(a, matrix),
      () => ops.linear(ops.swiglu(a, b), matrix),
      () => ops.swiglu(ops.linear(a, matrix), ops.linear(a, matrix)),
      () => ops.linear(ops.swiglu(ops.linear(b, matrix), ops.linear(b, matrix)), matrix),
      () => ops.linear(ops.rmsnorm(a, w, { eps: 1e-6 }), matrix),
      () => ops.topk(ops.softmax(a), width).values,
      () => {
        const heads = ops.rmsnorm(a.reshape(-1, 4, 8), w.narrow(0, 0, 8), { eps: 1e-6 });
        return ops.rope(heads, w.narrow(0, 8, 3), { position: 5, out: a === b ? undefined : a.reshape(-1, 4, 8) })
          .reshape(-1, width);
      },
    ];
    const made = makers[rng.int(makers.length)]();
    if (!pool.includes(made)) pool.push(made);
  }
  return [pick(), pool[pool.length - 1], pick()];
}
