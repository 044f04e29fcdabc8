/** No choice of the kernel selector changes a bit of `linear`, at any level. */
import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import {
  type Backend,
  byteLength,
  type DType,
  encodeLinearVariant,
  KernelSelector,
  linear,
  openBackend,
  packWeight,
  Tensor,
  tidy,
} from "@mllm/core";
import { testedLevels } from "../../tools/testing/x86_levels.ts";

let state = 7;
const below = (count: number) => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) % count;

/** Any variant at all, each field left to the level now and then. */
function anyVariant(): number {
  const maybe = (max: number) => below(3) === 0 ? undefined : 1 + below(below(2) === 0 ? max : Math.min(max, 20));
  const mode = (["auto", "gemv", "gemm"] as const)[below(3)];
  return encodeLinearVariant({ mode, fewRows: maybe(255), tileRows: maybe(63), run: maybe(4095), prefetch: maybe(15) });
}

/** Weights of random bytes whose scales (f16, where there are any) stay finite. */
function anyWeights(backend: Backend, dtype: DType, n: number, k: number): Tensor {
  if (dtype === "f32") {
    return Tensor.from(backend, Float32Array.from({ length: n * k }, () => below(200) / 100 - 1), [n, k]);
  }
  // No byte above 0x3f: as the high byte of an f16 or bf16 that is below 2.
  const bytes = Uint8Array.from({ length: byteLength(dtype, [n, k]) }, () => below(0x40));
  return Tensor.from(backend, bytes, [n, k], dtype);
}

for (const { level, plugin } of await testedLevels()) {
  describe(`variants of linear at x86:${level}`, () => {
    for (const activations of ["i8", "f32"] as const) {
      it(`with ${activations} activations`, async () => {
        using backend = await openBackend(plugin, { level, threads: 3, activations });
        const standard = backend.selector;
        for (const dtype of ["q4_0", "q8_0", "q5_0", "q4_k", "q6_k", "q2_k", "f32", "f16", "bf16"] as const) {
          tidy(() => {
            const [n, k] = [16 * 13 + 5, 512];
            const weights = packWeight(anyWeights(backend, dtype, n, k));
            for (const rows of [1, 2, 5, 8, 17, 33, 70]) {
              const x = Tensor.from(backend, Float32Array.from({ length: rows * k }, () => below(200) / 100 - 1), [
                rows,
                k,
              ]);
              backend.selector = standard;
              const expected = new Uint32Array(linear(x, weights).toFloat32Array().buffer);
              for (let i = 0; i < 6; i++) {
                const [variant, threads] = [anyVariant(), below(4)];
                const row = { op: "*", variant: 0, threads, reason: "any" } as const;
                backend.selector = new KernelSelector([{ ...row, op: "linear", variant }, row], level);
                const actual = new Uint32Array(linear(x, weights).toFloat32Array().buffer);
                assertEquals(actual, expected, `${dtype}, ${rows} rows, variant ${variant}, ${threads} threads`);
              }
            }
          });
        }
      });
    }

    it("others than the format's are refused", async () => {
      using backend = await openBackend(plugin, { level, threads: 1 });
      using weights = packWeight(Tensor.zeros(backend, [32, 32]));
      using x = Tensor.zeros(backend, [1, 32]);
      backend.selector = new KernelSelector([{ op: "linear", variant: 3, threads: 0, reason: "" }], level);
      let message = "";
      try {
        linear(x, weights).free();
      } catch (error) {
        message = (error as Error).message;
      }
      assertEquals(message.includes("the variant 0x3 has a mode that does not exist"), true, message);
    });
  });
}
