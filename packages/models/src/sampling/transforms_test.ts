import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MllmError, openSafetensors } from "@mllm/core";
import { sharedGolden } from "../../testing/oracle.ts";
import {
  minPProbabilities,
  penalize,
  temperatureProbabilities,
  topKProbabilities,
  topPProbabilities,
} from "./transforms.ts";

const round = (values: ArrayLike<number>) => Array.from(values, (value) => Math.round(value * 1e6) / 1e6);

describe("probability transforms", () => {
  const p = [0.1, 0.4, 0.2, 0.3];
  it("softmax with a temperature", () => {
    assertEquals(round(temperatureProbabilities([0, Math.log(3), -Infinity])), [0.25, 0.75, 0]);
    assertEquals(round(temperatureProbabilities([0, Math.log(3)], 0.5)), [0.1, 0.9]);
    assertEquals([...temperatureProbabilities([-Infinity, -Infinity])], [0, 0]);
    assertThrows(() => temperatureProbabilities([1], 0), MllmError, "temperature");
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
  it("min-p", () => assertEquals(round(minPProbabilities(p, 0.6)), [0, 0.571429, 0, 0.428571]));
  it("penalties", () => {
    const logits = Float32Array.of(2, -2, 1, 1);
    const penalties = { repetitionPenalty: 2, frequencyPenalty: 0.25, presencePenalty: 0.5 };
    penalize(logits, [0, 0, 1, 99, -1], penalties);
    assertEquals([...logits], [0, -4.75, 1, 1]);
  });
});

describe("probability transforms against the golden data", () => {
  const golden = sharedGolden();
  if (golden === undefined) return;
  const { cases } = JSON.parse(Deno.readTextFileSync(new URL("ops/ops.json", golden)));
  // deno-lint-ignore no-explicit-any
  const ours = cases.filter(({ op }: any) => op.startsWith("sample_") || op === "repetition_penalty");
  it("finds the cases", () => assertEquals(ours.length, 9));
  for (const { key, op, params, outputs } of ours) {
    it(key, async () => {
      const file = await openSafetensors(new URL("ops/ops.safetensors", golden).pathname);
      const read = (name: string) => {
        const { file: path, offset, bytes } = file.tensors.get(`${key}.${name}`)!;
        return Deno.readFileSync(path).slice(offset, offset + bytes).buffer;
      };
      const logits = new Float32Array(read("in.l"));
      const expected = new Float32Array(read("out"));
      const width = 65;
      const { f32_noise_maxabs: noise, ref_rms: rms } = outputs.out;
      const tolerance = Math.max(8 * noise, 8e-6 * Math.max(1, rms));
      for (let row = 0; row < logits.length / width; row++) {
        const input = logits.slice(row * width, (row + 1) * width);
        let result: ArrayLike<number> = input;
        const p = () => temperatureProbabilities(input);
        if (op === "sample_temperature_probs") result = temperatureProbabilities(input, params.temperature);
        else if (op === "sample_top_k_probs") result = topKProbabilities(p(), params.top_k);
        else if (op === "sample_top_p_probs") result = topPProbabilities(p(), params.top_p);
        else if (op === "sample_min_p_probs") result = minPProbabilities(p(), params.min_p);
        else {
          const previous = [...new Int32Array(read("in.prev"))].slice(row * 3, row * 3 + 3);
          penalize(input, previous, { repetitionPenalty: params.penalty, frequencyPenalty: 0, presencePenalty: 0 });
        }
        for (let i = 0; i < width; i++) assert(Math.abs(result[i] - expected[row * width + i]) <= tolerance);
      }
    });
  }
});
