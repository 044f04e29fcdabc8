import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { goldenPath, skipWithout } from "../../../../tools/testing/golden.ts";
import { MllmError } from "../errors.ts";
import { ropeContextMax, ropeFrequencies, ropeParameters } from "./rope.ts";

interface Case {
  key: string;
  op: string;
  params: Record<string, unknown> & { inv_freq?: number[]; attention_factor: number };
}

describe("rope frequencies", () => {
  it("read both forms of the config", () => {
    const scaling = { type: "yarn", factor: 4, original_max_position_embeddings: 32 };
    const old = ropeParameters({ head_dim: 16, rope_theta: 1e6, rope_scaling: scaling, max_position_embeddings: 128 });
    const recent = ropeParameters({
      hidden_size: 64,
      num_attention_heads: 4,
      rope_parameters: { ...scaling, type: undefined, rope_type: "yarn", rope_theta: 1e6 },
      max_position_embeddings: 128,
    });
    assertEquals(recent, old);
    assertEquals(ropeParameters({ head_dim: 16, rope_scaling: null }).theta, 10000);
  });

  it("refuse what they don't know", () => {
    assertThrows(() => ropeParameters({ head_dim: 16, rope_scaling: { type: "longrope" } }), MllmError, "longrope");
    assertThrows(() => ropeParameters({ head_dim: 16, rope_scaling: { type: "linear", wave: 1 } }), MllmError, "wave");
    assertThrows(() => ropeParameters({ rope_theta: 1 }), MllmError, "head_dim");
    assertThrows(() => ropeParameters({ head_dim: 16, rope_theta: "1" }), MllmError, "rope_theta");
    const missing = ropeParameters({ head_dim: 16, rope_scaling: { type: "linear" } });
    assertThrows(() => ropeFrequencies(missing), MllmError, "factor");
    const zero = (key: string, value = 0) => ({
      head_dim: 16,
      rope_scaling: { type: "yarn", factor: 4, [key]: value },
    });
    for (const key of ["factor", "original_max_position_embeddings"]) {
      assertThrows(() => ropeParameters(zero(key)), MllmError, `${key} must be a positive number`);
    }
    const endless = ropeParameters({ ...zero("factor", 1e-300), max_position_embeddings: 64 });
    assertThrows(() => ropeFrequencies(endless), MllmError, "finite");
  });

  it("stretch the context by linear and YaRN scaling, whichever length the config states", () => {
    const limit = (type: string, max: number, scaling: Record<string, unknown> = {}) =>
      ropeContextMax(
        ropeParameters({ head_dim: 16, max_position_embeddings: max, rope_scaling: { type, factor: 4, ...scaling } }),
      );
    assertEquals(limit("yarn", 32768), 131072);
    assertEquals(limit("yarn", 40960, { original_max_position_embeddings: 32768 }), 131072);
    assertEquals(limit("yarn", 131072, { original_max_position_embeddings: 32768 }), 131072);
    assertEquals(limit("linear", 4096), 16384);
    assertEquals(limit("default", 4096), 4096);
    assertEquals(limit("llama3", 131072, { original_max_position_embeddings: 65536 }), 131072);
  });

  it("halve at twice the pair index of sqrt(theta)", () => {
    const { invFreq, attentionFactor } = ropeFrequencies(ropeParameters({ head_dim: 8, rope_theta: 10000 }));
    assertEquals([...invFreq], [1, 0.1, 0.01, 0.001].map(Math.fround));
    assertEquals(attentionFactor, 1);
  });

  const golden = goldenPath("ops/ops.json");
  it("are those of the reference", { skip: skipWithout(golden) }, () => {
    const { cases } = JSON.parse(Deno.readTextFileSync(golden!)) as { cases: Case[] };
    let compared = 0;
    for (const { key, params } of cases.filter(({ op, params }) => op.startsWith("rope_") && params.inv_freq)) {
      const parameters = ropeParameters({
        head_dim: params.head_dim,
        rope_theta: params.theta,
        rope_scaling: params.rope_scaling ?? null,
        partial_rotary_factor: params.partial_rotary_factor,
        max_position_embeddings: params.max_position_embeddings,
      });
      const { invFreq, attentionFactor } = ropeFrequencies(parameters, params.seq_len as number | undefined);
      assertEquals(invFreq.length, params.inv_freq!.length, key);
      params.inv_freq!.forEach((f, i) =>
        assert(Math.abs(invFreq[i] - f) <= 1e-7 * f, `${key} ${i}: ${invFreq[i]} is not ${f}`)
      );
      assertAlmostEquals(attentionFactor, params.attention_factor, 1e-12);
      compared++;
    }
    assert(compared >= 30, `${compared} cases`);
  });
});
