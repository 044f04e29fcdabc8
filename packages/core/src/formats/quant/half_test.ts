import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { readTensors } from "../../../testdata/tensors.ts";
import { goldenPath, skipWithout } from "../../../../../tools/testing/golden.ts";
import { bf16FromF32Bits, f16FromF32Bits, f32Bits, f32FromBits, fromF16, toF16 } from "./half.ts";

describe("half", () => {
  it("round-trips every f16", () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = fromF16(bits);
      if (Number.isNaN(value)) assert((bits & 0x7c00) === 0x7c00 && (bits & 0x3ff) !== 0);
      else assertEquals(toF16(value), bits);
    }
  });

  it("rounds to nearest even, in the middle between all neighbours", () => {
    for (let bits = 0; bits < 0x7bff; bits++) {
      const middle = (fromF16(bits) + fromF16(bits + 1)) / 2;
      assertEquals(toF16(middle), bits + (bits & 1));
      assertEquals(f16FromF32Bits(f32Bits(middle) - 1), bits);
      assertEquals(f16FromF32Bits(f32Bits(middle) + 1), bits + 1);
    }
  });

  it("bf16 rounds to nearest even and keeps NaN", () => {
    assertEquals(bf16FromF32Bits(0x3f808000), 0x3f80);
    assertEquals(bf16FromF32Bits(0x3f818000), 0x3f82);
    assertEquals(bf16FromF32Bits(0x7f7fffff), 0x7f80);
    assertEquals(bf16FromF32Bits(0xffffffff), 0xffff);
    assert(Number.isNaN(f32FromBits(bf16FromF32Bits(0x7f800001) << 16)));
  });

  const golden = goldenPath("quant/affine_mx.safetensors");
  it("equals numpy and ml_dtypes on the reference conversions", { skip: skipWithout(golden) }, () => {
    const tensors = readTensors(golden!);
    const words = (name: string) => new Int32Array(tensors.get(name)!.slice().buffer);
    const x = new Uint32Array(tensors.get("cvt.x")!.slice().buffer);
    assertEquals([...x].map(f16FromF32Bits), [...words("cvt.f16_bits")]);
    assertEquals([...x].map(bf16FromF32Bits), [...words("cvt.bf16_bits")]);
    const values = tensors.floats("f16.value");
    words("f16.bits").forEach((bits, i) => assert(Object.is(fromF16(bits), values[i])));
  });
});
