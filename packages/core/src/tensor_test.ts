import { assert, assertEquals, assertThrows } from "@std/assert";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import { leakChecked, openTestBackend } from "../testdata/backend.ts";
import { type Backend, type BackendPlugin, openBackend } from "./backend.ts";
import { MllmError } from "./errors.ts";
import { KvCache, type KvCacheOptions } from "./kv_cache.ts";
import { add, attention, copy, embedding, kvAppend, linear, mulConst, packWeight, rmsnorm } from "./ops.ts";
import { Tensor } from "./tensor.ts";
import { keep, tidy } from "./tidy.ts";

const counting = (count: number): Float32Array => Float32Array.from({ length: count }, (_, i) => i);

describe("tensors", () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openTestBackend();
  });
  afterAll(() => backend[Symbol.dispose]());

  const check = leakChecked(() => backend);

  check("hold what they are made of, in every plain type", () => {
    for (const dtype of ["f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64"] as const) {
      using x = Tensor.from(backend, [1, -2, 3, 4, 5, 6], [2, 3], dtype);
      assertEquals([...x.toFloat32Array()], [1, -2, 3, 4, 5, 6], dtype);
    }
    using bytes = Tensor.from(backend, new Uint8Array([1, 255]), [2]);
    assertEquals(bytes.dtype, "u8");
    assertEquals([...bytes.toInt32Array()], [1, 255]);
    using halves = Tensor.from(backend, Float16Array.of(0.5, 2), [2]);
    using long = Tensor.from(backend, BigInt64Array.of(-5n, 7n), [2]);
    assertEquals([halves.dtype, ...halves.toFloat32Array(), long.dtype, ...long.toInt32Array()], [
      "f16",
      0.5,
      2,
      "i64",
      -5,
      7,
    ]);
    assertThrows(() => Tensor.from(backend, [1, 2, 3], [2, 2]), MllmError, "write");
    const torch = "float32" as "f32";
    assertThrows(() => Tensor.empty(backend, [2], torch), MllmError, 'there is no dtype "float32". There are: f32, ');
    const shape = 2 as unknown as number[];
    assertThrows(() => Tensor.empty(backend, shape), MllmError, "a shape must be an array of lengths, not number");
    const number = 5 as unknown as Tensor;
    assertThrows(() => add(bytes, number), MllmError, "add: b must be a tensor, not number");
    const nothing = null as unknown as Tensor;
    assertThrows(() => add(bytes, nothing), MllmError, "add: b must be a tensor, not null");
    assertThrows(() => add(bytes, bytes, { out: nothing }), MllmError, "add: out must be a tensor, not null");
    assertThrows(() => Tensor.empty(backend, [1, -1]), MllmError, "[1, -1]");
  });

  check("share memory with views until the last is freed", () => {
    const x = Tensor.from(backend, counting(24), [2, 3, 4]);
    const bytes = backend.memoryInUse;
    const row = x.narrow(1, 1, 1);
    const turned = x.permute(2, 0, 1);
    x.free();
    assertEquals(backend.memoryInUse, bytes);
    assertEquals([...row.toFloat32Array()], [4, 5, 6, 7, 16, 17, 18, 19]);
    assertEquals(turned.shape, [4, 2, 3]);
    assertEquals([...turned.toFloat32Array()].slice(0, 6), [0, 4, 8, 12, 16, 20]);
    row.free();
    using flat = tidy(() => turned.permute(1, 2, 0).reshape(24));
    assertEquals([...flat.toFloat32Array()], [...counting(24)]);
    assertThrows(() => turned.reshape(24), MllmError, "Copy it first");
    using transposed = turned.transpose(0, -1);
    assertEquals(transposed.shape, [3, 2, 4]);
    turned.free();
  });

  check("refuse use after free", () => {
    const x = Tensor.from(backend, [1, 2], [2]).named("weight");
    x.free();
    x.free();
    assertThrows(() => x.toFloat32Array(), MllmError, "toFloat32Array: weight: f32 [2] was freed");
    assertThrows(() => x.reshape(1, 2), MllmError, "freed");
    assertThrows(() => mulConst(x, 2), MllmError, 'mul_const: x "weight": f32 [2] was freed. `free`, the end');
  });

  check("are named in the errors of ops", () => {
    using x = Tensor.from(backend, counting(6), [2, 3]).named("hidden");
    using w = Tensor.from(backend, counting(4), [4]).named("norm.weight");
    const error = assertThrows(() => rmsnorm(x, w, { eps: 1e-5 }), MllmError);
    assertEquals(error.code, "invalid_argument");
    for (const part of ["rmsnorm", '"hidden"', "f32 [2, 3]", '"norm.weight"', "f32 [4]"]) {
      assert(error.message.includes(part));
    }
    assertThrows(() => tidy(() => add(x, x, { out: x.narrow(0, 0, 1) })), MllmError, "out");
    using wide = Tensor.from(backend, counting(9), [3, 3]);
    using upper = wide.narrow(0, 0, 2);
    using lower = wide.narrow(0, 1, 2);
    assertThrows(() => mulConst(upper, 2, { out: lower }), MllmError, "overlaps");
    assertThrows(() => add(x, x, { out: w }), MllmError, "f32 [4]");
    using ids = Tensor.from(backend, Int32Array.of(1, 3), [2]);
    assertEquals(
      assertThrows(() => embedding(ids, wide), MllmError).message,
      "embedding(ids: i32 [2], table: f32 [3, 3]): an id is outside of the table",
      "the native line names the op as well",
    );
  });

  check("are freed by tidy, except what it returns", () => {
    const kept = tidy(() => {
      const x = Tensor.from(backend, counting(4), [4]);
      const inner = tidy(() => ({ list: [mulConst(x, 2)], lost: 1 }));
      return { a: add(inner.list[0], x), b: [keep(copy(x))] };
    });
    assertEquals([...kept.a.toFloat32Array()], [0, 3, 6, 9]);
    assertEquals(backend.liveAllocations, 2);
    kept.a.free();
    kept.b[0].free();
    assertThrows(() => tidy(() => Tensor.from(backend, [1], [2])), MllmError);
    assertThrows(() => tidy(() => Promise.resolve(1)), MllmError, "asynchronous");
  });

  check("remember their int8 companion until they change or go", () => {
    using w = tidy(() => packWeight(Tensor.from(backend, new Uint8Array(18 * 4).fill(60), [4, 32], "q4_0")));
    const x = Tensor.from(backend, counting(32), [1, 32]);
    tidy(() => void linear(x, w));
    const first = x.companion!.tensor;
    tidy(() => void linear(x, w));
    assertEquals(x.companion!.tensor, first);
    mulConst(x, 0.5, { out: x });
    tidy(() => void linear(x, w));
    assert(first.isFreed && x.companion!.tensor !== first);
    x.free();
  });

  check("are given back by the finaliser at last", async () => {
    (() => {
      for (let i = 0; i < 100; i++) Tensor.from(backend, counting(1000), [1000]).reshape(10, 100);
    })();
    const collect = (globalThis as { gc?: () => void }).gc;
    const pressure: unknown[] = [];
    for (let i = 0; i < 200 && backend.memoryInUse > 0; i++) {
      collect?.();
      pressure.push(new Array(200_000).fill(i));
      if (pressure.length > 20) pressure.length = 0;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assertEquals(backend.memoryInUse, 0);
  });

  check("of a cache hold the same for each layer, however small its pages are", () => {
    const options = { layers: 3, kvHeads: 1, headDim: 32, capacity: 32, pageSize: 16 };
    for (const dtype of ["f32", "f16", "q8_0", "q4_0"] as const) {
      tidy(() => {
        using cache = new KvCache(backend, { ...options, keyDtype: dtype, valueDtype: dtype });
        const rows = Tensor.from(backend, counting(20 * 32).map((x) => Math.sin(x)), [20, 1, 32]);
        const results = cache.layers.map(({ k, v }) => {
          kvAppend(rows, cache.pages, k, { position: 0 });
          kvAppend(rows, cache.pages, v, { position: 0 });
          return attention(rows, k, v, cache.pages, { position: 0, scale: 0.2 }).toFloat32Array();
        });
        for (const result of results) assertEquals(result, results[0], dtype);
      });
    }
  });

  check("of a cache take what it says", () => {
    const options = { layers: 2, kvHeads: 3, headDim: 5, capacity: 100, pageSize: 16 };
    const cache = new KvCache(backend, options);
    assertEquals([cache.capacity, cache.pages.shape[0]], [112, 7]);
    assertEquals(cache.bytes, 2 * 2 * 112 * 3 * 5 * 2);
    assertEquals(backend.memoryInUse, cache.bytes + 7 * 4);
    assertEquals([...cache.pages.toInt32Array()], [0, 2, 4, 6, 8, 10, 12]); // the layers' pages take turns
    assertEquals(cache.layers.map(({ k, v }) => [k.shape[0], v.byteOffset]), [[13, 0], [13, 16 * 3 * 5 * 2]]);
    cache[Symbol.dispose]();
    assertEquals(backend.memoryInUse, 0);
    assertThrows(() => new KvCache(backend, { ...options, layers: 0 }), MllmError, "layers");
    const coded = { ...options, headDim: 64, keyDtype: "q8_0", valueDtype: "q4_0" } as const;
    using other = new KvCache(backend, coded);
    assertEquals(other.bytes, 2 * 3 * (112 * (68 + 36) + 7 * 64 * 2));
    assertEquals(backend.memoryInUse, other.bytes + 7 * 4);
    assertEquals(other.layers.map(({ k, v }) => [k.dtype, k.layout, v.dtype, v.layout]), [
      ["q8_0", "kv_keys", "q4_0", "kv_values"],
      ["q8_0", "kv_keys", "q4_0", "kv_values"],
    ]);
    const refused = (changes: Partial<KvCacheOptions>, text: string) =>
      assertThrows(() => new KvCache(backend, { ...coded, ...changes }), MllmError, text);
    refused({ headDim: 80 }, "KvCache: keyDtype: q8_0 takes heads of a multiple of 32");
    refused({ headDim: 80, keyDtype: "f16" }, "KvCache: valueDtype: q4_0 takes heads");
    refused({ pageSize: 24 }, "KvCache: pageSize must be a multiple of 16 up to 512 for q8_0 (keyDtype), not 24");
    const q5 = "q5_0" as "q4_0";
    refused({ keyDtype: q5 }, 'KvCache: keyDtype must be one of f32, f16, q8_0, q4_0, not "q5_0"');
    refused({ valueDtype: q5 }, 'KvCache: valueDtype must be one of f32, f16, q8_0, q4_0, not "q5_0"');
  });
});

describe("backends", () => {
  it("name what is wrong with their options", async () => {
    const message = async (fn: () => Promise<Backend>): Promise<string> => {
      try {
        (await fn())[Symbol.dispose]();
      } catch (error) {
        if (error instanceof MllmError) return error.message;
      }
      return "";
    };
    assert((await message(() => openTestBackend({ level: "mmx" }))).includes("mmx"));
    assert((await message(() => openTestBackend({ threads: -1 }))).includes("-1"));
    const activations = "i4" as "i8";
    assertEquals(
      await message(() => openTestBackend({ activations })),
      '`activations` must be "i8" or "f32", not "i4"',
    );
    for (const none of [undefined, null, {}, "x86"]) {
      assert(
        (await message(() => openBackend(none as unknown as BackendPlugin))).startsWith("no backend plugin is given"),
      );
    }
  });

  it("map files and keep them mapped for tensors", async () => {
    using backend = await openTestBackend();
    const path = await Deno.makeTempFile();
    await Deno.writeFile(path, new Uint8Array(counting(16).buffer));
    const file = backend.mapFile(path);
    assertEquals(file.bytes, 64);
    const x = Tensor.fromAddress(backend, file.address + 16n, "f32", [3], file, { name: "mapped" });
    file[Symbol.dispose]();
    file[Symbol.dispose]();
    assertThrows(() => x.write([1, 2, 3]), MllmError, "read-only");
    assertThrows(() => mulConst(x, 2, { out: x }), MllmError, "read-only");
    assertEquals([...x.toFloat32Array()], [4, 5, 6]);
    x.free();
    assertThrows(() => Tensor.fromAddress(backend, file.address, "f32", [3], file), MllmError, "mapped");
    const part = backend.mapFile(path, { offset: 20, bytes: 12 });
    assertEquals(part.bytes, 12);
    using y = Tensor.fromAddress(backend, part.address, "f32", [3], part);
    assertEquals([...y.toFloat32Array()], [5, 6, 7]);
    part[Symbol.dispose]();
    const beyond = assertThrows(() => backend.mapFile(path, { offset: 60, bytes: 8 }), MllmError, "before that range");
    assertEquals(beyond.code, "io");
    const code = (name: string) => assertThrows(() => backend.mapFile(name), MllmError, name).code;
    assertEquals(code(`${path}.missing`), "not_found");
    await Deno.truncate(path);
    assertEquals(code(path), "io");
    await Deno.remove(path);
  });

  it("refuse work when closed, and freeing stays harmless", async () => {
    const backend = await openTestBackend();
    const x = Tensor.from(backend, [1], [1]);
    backend[Symbol.dispose]();
    assertThrows(() => mulConst(x, 2), MllmError, "closed");
    assertThrows(() => x.toFloat32Array(), MllmError, "closed");
    assertThrows(() => x.write([2]), MllmError, "closed");
    x.free();
  });
});
