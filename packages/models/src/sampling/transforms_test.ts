import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals } from "@std/assert";
import { goldenPath, skipWithout } from "../../../../tools/testing/golden.ts";
import { Oracle } from "../../testing/oracle.ts";
import {
  minPProbabilities,
  temperatureProbabilities,
  topKProbabilities,
  topPProbabilities,
} from "../../testing/probabilities.ts";
import { countTopP, penalize } from "./transforms.ts";

const round = (values: ArrayLike<number>) => Array.from(values, (value) => Math.round(value * 1e6) / 1e6);

describe("probability transforms", () => {
  const p = [0.1, 0.4, 0.2, 0.3];
  it("softmax with a temperature", () => {
    assertEquals(round(temperatureProbabilities([0, Math.log(3), -Infinity])), [0.25, 0.75, 0]);
    assertEquals(round(temperatureProbabilities([0, Math.log(3)], 0.5)), [0.1, 0.9]);
    assertEquals([...temperatureProbabilities([-Infinity, -Infinity])], [0, 0]);
  });
  it("top-k", () => {
    assertEquals(round(topKProbabilities(p, 1)), [0, 1, 0, 0]);
    assertEquals(round(topKProbabilities([0.25, 0.25, 0.5], 2)), [0.333333, 0, 0.666667]);
    assertEquals(round(topKProbabilities(p, 0)), p);
  });
  it("top-p keeps the token that crosses", () => {
    assertEquals(round(topPProbabilities(p, 0.5)), [0, 0.571429, 0, 0.428571]);
    assertEquals(round(topPProbabilities(p, 0)), [0, 1, 0, 0]);
    assertEquals(round(topPProbabilities(p, 1)), p);
  });
  it("how many tokens top-p keeps", () => {
    const sorted = [0.5, 0.25, 0.125, 0.125];
    assertEquals([0, 0.5, 0.6, 0.75, 0.8, 1].map((limit) => countTopP(sorted, limit)), [1, 1, 2, 2, 3, 4]);
    assertEquals(countTopP([], 1), 0);
  });
  it("min-p", () => assertEquals(round(minPProbabilities(p, 0.6)), [0, 0.571429, 0, 0.428571]));
  it("penalties", () => {
    const logits = Float32Array.of(2, -2, 1, 1);
    const penalties = { repetitionPenalty: 2, frequencyPenalty: 0.25, presencePenalty: 0.5 };
    penalize(logits, [0, 0, 1, 99, -1], penalties);
    assertEquals([...logits], [0, -4.75, 1, 1]);
  });
});

interface Case {
  key: string;
  op: string;
  params: Record<"temperature" | "top_k" | "top_p" | "min_p" | "penalty", number>;
  outputs: { out: { f32_noise_maxabs: number; ref_rms: number } };
}

/** What our functions make of a row. */
function apply({ op, params }: Case, row: Float32Array, previous: () => number[]): ArrayLike<number> {
  if (op === "sample_temperature_probs") return temperatureProbabilities(row, params.temperature);
  if (op === "sample_top_k_probs") return topKProbabilities(temperatureProbabilities(row), params.top_k);
  if (op === "sample_top_p_probs") return topPProbabilities(temperatureProbabilities(row), params.top_p);
  if (op === "sample_min_p_probs") return minPProbabilities(temperatureProbabilities(row), params.min_p);
  penalize(row, previous(), { repetitionPenalty: params.penalty, frequencyPenalty: 0, presencePenalty: 0 });
  return row;
}

describe("sampling against the golden data", () => {
  const golden = goldenPath("ops");
  it("9 cases", { skip: skipWithout(golden) }, async () => {
    const { cases } = JSON.parse(Deno.readTextFileSync(`${golden}/ops.json`)) as { cases: Case[] };
    const ours = cases.filter(({ op }) => op.startsWith("sample_") || op === "repetition_penalty");
    assertEquals(ours.length, 9);
    const oracle = await Oracle.open(`${golden}/ops.safetensors`);
    const width = 65;
    for (const one of ours) {
      const { key, outputs: { out: { f32_noise_maxabs: noise, ref_rms: rms } } } = one;
      const tolerance = Math.max(8 * noise, 8e-6 * Math.max(1, rms));
      const logits = oracle.floats(`${key}.in.l`);
      const expected = oracle.floats(`${key}.out`);
      for (let row = 0; row < logits.length / width; row++) {
        const input = logits.slice(row * width, (row + 1) * width);
        const result = apply(one, input, () => oracle.ints(`${key}.in.prev`).slice(row * 3, row * 3 + 3));
        for (let i = 0; i < width; i++) {
          assert(Math.abs(result[i] - expected[row * width + i]) <= tolerance, `${key} row ${row} token ${i}`);
        }
      }
    }
  });
});
