import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type DType, dtypes } from "../../dtype.ts";
import { MllmError } from "../../errors.ts";
import { readTensors, testdata } from "../../../testdata/tensors.ts";
import { goldenPath } from "../../../../../tools/testing/golden.ts";
import { dequantize } from "./dequantize.ts";
import { quantize } from "./quantize.ts";

const blockTypes = (Object.keys(dtypes) as DType[]).filter((name) =>
  dtypes[name].quantized && dtypes[name].blockBytes > 0
);

/** Largest |a - b| over blocks of 32, relative to the block's largest |b|. */
function blockError(actual: Float32Array, expected: Float32Array): number {
  assertEquals(actual.length, expected.length);
  let worst = 0;
  for (let o = 0; o < expected.length; o += 32) {
    let max = 0;
    let error = 0;
    for (let i = o; i < Math.min(o + 32, expected.length); i++) {
      max = Math.max(max, Math.abs(expected[i]));
      error = Math.max(error, Math.abs(actual[i] - expected[i]));
    }
    if (error > 0) worst = Math.max(worst, error / max);
  }
  return worst;
}

describe("dequantize", () => {
  // A copy of a few blocks of every type, so that this also runs without the shared data.
  const tensors = readTensors(
    goldenPath("quant/gguf_blocks.safetensors") ?? testdata("blocks.safetensors"),
  );
  for (const dtype of [...blockTypes, "f16", "bf16"] as DType[]) {
    for (const set of ["quant", "random"]) {
      const key = `${dtype.toUpperCase()}.${set}`;
      const bytes = tensors.get(`${key}.bytes`);
      if (!bytes) continue;
      it(`${key} equals gguf-py's`, () => {
        const expected = tensors.floats(`${key}.deq`);
        assert(blockError(dequantize(dtype, bytes, expected.length), expected) <= 3e-7);
      });
    }
  }

  it("has a decoder for every block type", () => {
    for (const dtype of blockTypes) {
      const { blockElements, blockBytes } = dtypes[dtype];
      assertEquals(dequantize(dtype, new Uint8Array(blockBytes * 3), blockElements * 3).length, blockElements * 3);
      assert(tensors.get(`${dtype.toUpperCase()}.random.bytes`), `no reference data for ${dtype}`);
    }
  });

  it("refuses part of a block, too few bytes and packed types", () => {
    assertThrows(() => dequantize("q4_0", new Uint8Array(18), 31), MllmError, "whole blocks");
    assertThrows(() => dequantize("q4_0", new Uint8Array(17), 32), MllmError, "need 18 bytes");
    assertThrows(() => dequantize("q8a", new Uint8Array(100), 32), MllmError);
  });
});

describe("quantize", () => {
  const tensors = readTensors(
    goldenPath("quant/gguf_blocks.safetensors") ?? testdata("blocks.safetensors"),
  );
  const x = tensors.floats("x");
  for (const dtype of ["f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"] as DType[]) {
    it(`${dtype} gives the bytes of gguf-py`, () => {
      const expected = tensors.get(`${dtype.toUpperCase()}.quant.bytes`)!;
      const actual = quantize(dtype, x);
      assertEquals(actual.length, expected.length);
      assertEquals(actual.findIndex((byte, i) => byte !== expected[i]), -1);
    });
  }

  it("keeps zeros, refuses part of a block", () => {
    for (const dtype of ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"] as DType[]) {
      assert(dequantize(dtype, quantize(dtype, new Float32Array(64)), 64).every((value) => value === 0));
      assertThrows(() => quantize(dtype, new Float32Array(33)), MllmError, "whole blocks");
    }
    assertThrows(() => quantize("q4_k", new Float32Array(256)), MllmError, "can't quantise");
  });
});
