import { x86 } from "@mllm/backend-x86";
import { MllmError, openBackend, openSafetensors, writeSafetensors } from "@mllm/core";
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { WeightLoader, windowsOf } from "./weights.ts";

describe("WeightLoader", () => {
  it("gives matrices at once, and takes and fills their memory when told", async () => {
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      const data = Float32Array.from({ length: 12 }, (_, i) => i);
      await writeSafetensors(path, [{ name: "up.weight", dtype: "f32", shape: [3, 4], data }]);
      using backend = await openBackend(x86, { threads: 1 });
      const done: number[] = [];
      const source = { path, weights: (await openSafetensors(path)).tensors };
      using weights = new WeightLoader(backend, source, (bytes, total) => done.push(bytes / total));
      const { weight } = weights.linear("up", 3, 4);
      assertEquals([weight.layout, weight.shape, done, backend.memoryInUse], ["panel16", [3, 4], [], 0]);
      await weights.load();
      assertEquals(backend.memoryInUse, 16 * 4 * 4);
      assertEquals([weight.toFloat32Array(), done], [data, [1]]);
      await weights.load();
      assertEquals(done, [1]);
    } finally {
      await Deno.remove(path);
    }
  });

  it("reports tables that stay in their file", async () => {
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      const tensor = (name: string) => ({ name, dtype: "f32", shape: [3, 4], data: new Float32Array(12) }) as const;
      await writeSafetensors(path, [tensor("table.weight"), tensor("head.weight")]);
      using backend = await openBackend(x86, { threads: 1 });
      const done: number[] = [];
      const source = { path, weights: (await openSafetensors(path)).tensors };
      using weights = new WeightLoader(backend, source, (bytes, total) => done.push(bytes / total));
      weights.embedding("table", 3, 4, false);
      weights.linear("head", 3, 4);
      await weights.load();
      assertEquals(done, [1]);
    } finally {
      await Deno.remove(path);
    }
  });

  it("counts what is asked for, not what else the file has", async () => {
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      const data = new Float32Array(12);
      const names = ["table.weight", "up.weight", "head.weight"];
      await writeSafetensors(path, names.map((name) => ({ name, dtype: "f32", shape: [3, 4], data })));
      using backend = await openBackend(x86, { threads: 1 });
      const done: number[] = [];
      const source = { path, weights: (await openSafetensors(path)).tensors };
      using weights = new WeightLoader(backend, source, (bytes, total) => done.push(bytes / total));
      weights.embedding("table", 3, 4, true);
      weights.linear("up", 3, 4);
      weights.tiedHead("table");
      await weights.load();
      assertEquals(done, [0.5, 1]);
    } finally {
      await Deno.remove(path);
    }
  });

  it("fills weights that lie side by side, in whatever order they were asked for", async () => {
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      const values = (first: number, count: number) => Float32Array.from({ length: count }, (_, i) => first + i);
      const tensor = (name: string, shape: number[], first: number) =>
        ({ name, dtype: "f32", shape, data: values(first, shape.reduce((a, b) => a * b)) }) as const;
      await writeSafetensors(path, [
        tensor("a.weight", [16, 4], 0),
        tensor("norm.weight", [4], 100),
        tensor("unused.weight", [1000, 4], 200),
        tensor("b.weight", [32, 4], 300),
      ]);
      using backend = await openBackend(x86, { threads: 1 });
      using weights = new WeightLoader(backend, { path, weights: (await openSafetensors(path)).tensors });
      const { weight: b } = weights.linear("b", 32, 4);
      const { weight: norm } = weights.rmsNorm("norm", 4, 1e-6);
      const { weight: a } = weights.linear("a", 16, 4);
      await weights.load();
      const loaded = [a, norm, b].map((weight) => weight.toFloat32Array());
      assertEquals(loaded, [values(0, 64), values(100, 4), values(300, 128)]);
    } finally {
      await Deno.remove(path);
    }
  });

  it("maps large weights first and alone, others in the order of the file as long as they fit", () => {
    const MiB = 2 ** 20;
    const at = (file: string, offset: number, bytes: number) => ({
      info: { file, offset: offset * MiB, bytes: bytes * MiB },
    });
    const [second, large, first, far, other] = [
      at("a", 30, 8),
      at("a", 40, 17),
      at("a", 24, 4),
      at("a", 38, 3),
      at("b", 42, 1),
    ];
    assertEquals(windowsOf([other, second, large, far, first]), [
      { ...large.info, weights: [large] },
      { file: "a", offset: 24 * MiB, bytes: 14 * MiB, weights: [first, second] },
      { ...far.info, weights: [far] }, // 17 MiB from the first
      { ...other.info, weights: [other] },
    ]);
  });

  it("says that a file became shorter, and to wait for it", async () => {
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      await writeSafetensors(path, [{ name: "norm.weight", dtype: "f32", shape: [4], data: new Float32Array(4) }]);
      using backend = await openBackend(x86, { threads: 1 });
      using weights = new WeightLoader(backend, { path, weights: (await openSafetensors(path)).tensors });
      for (const bytes of [Deno.statSync(path).size - 1, 0]) {
        await Deno.truncate(path, bytes);
        weights.rmsNorm("norm", 4, 1e-6);
        const error = await assertRejects(() => weights.load(), MllmError, "shorter");
        assertEquals([error.code, error.file], ["invalid_file", path]);
        assertMatch(error.message, new RegExp(`: ${bytes} bytes \\([^()]+\\)\\. Wait for its download to end`));
      }
    } finally {
      await Deno.remove(path);
    }
  });

  it("refuses integers for weights as a fault of the file", async () => {
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      await writeSafetensors(path, [{ name: "norm.weight", dtype: "i32", shape: [4], data: new Int32Array(4) }]);
      using backend = await openBackend(x86, { threads: 1 });
      using weights = new WeightLoader(backend, { path, weights: (await openSafetensors(path)).tensors });
      const error = assertThrows(() => weights.rmsNorm("norm", 4, 1e-6), MllmError, "norm.weight holds integers (i32)");
      assertEquals([error.code, error.file], ["invalid_file", path]);
    } finally {
      await Deno.remove(path);
    }
  });
});
