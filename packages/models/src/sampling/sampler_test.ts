import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import {
  minPProbabilities,
  temperatureProbabilities,
  topKProbabilities,
  topPProbabilities,
} from "../../testing/probabilities.ts";
import { Random } from "./random.ts";
import { Sampler, type SamplingOptions } from "./sampler.ts";

const off: Partial<SamplingOptions> = { temperature: 1, topK: 0, topP: 1, minP: 0 };

function randomLogits(size: number, seed: number): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: size }, () => (random.next() + random.next() + random.next() - 1.5) * 6);
}

describe("Sampler", () => {
  it("is greedy at temperature 0, the lower id first", () => {
    const sampler = new Sampler({ temperature: 0 });
    assertEquals(sampler.sample(Float32Array.of(1, 3, 3, -Infinity)), 1);
    assertEquals(new Sampler({ topK: 1 }).sample(Float32Array.of(1, 3, 3)), 1);
  });
  it("repeats itself with the same seed", () => {
    const logits = randomLogits(1000, 1);
    const draw = (seed: number) => {
      const sampler = new Sampler({ seed });
      return Array.from({ length: 50 }, () => sampler.sample(logits));
    };
    assertEquals(draw(5), draw(5));
    assertNotEquals(draw(5), draw(6));
    assertNotEquals(new Sampler().options.seed, new Sampler().options.seed);
  });

  const settings: Partial<SamplingOptions>[] = [
    {},
    { temperature: 0.5 },
    { topK: 7 },
    { topP: 0.6 },
    { minP: 0.1 },
    { topK: 20, topP: 0.8, minP: 0.02, temperature: 1.5 },
    { topP: 0.99, minP: 0.3 },
    { topP: 0.97 },
    { topK: 1500, topP: 0.9 },
  ];
  for (const given of settings) {
    it(`draws with the right probabilities: ${JSON.stringify(given)}`, () => {
      const logits = randomLogits(given.topK === 1500 ? 2000 : 400, 3).map((x) => given.topP! >= 0.9 ? x / 9 : x);
      const options = { ...off, ...given };
      let p = topKProbabilities(temperatureProbabilities(logits), options.topK!);
      p = minPProbabilities(topPProbabilities(p, options.topP!), options.minP!);
      p = temperatureProbabilities(Array.from(p, Math.log), options.temperature);
      const sampler = new Sampler({ ...options, seed: 11 });
      const counts = new Float64Array(logits.length);
      const draws = 20_000;
      for (let i = 0; i < draws; i++) counts[sampler.sample(logits)]++;
      for (let i = 0; i < p.length; i++) {
        const sigma = Math.sqrt(p[i] * (1 - p[i]) / draws);
        assert(
          Math.abs(counts[i] / draws - p[i]) <= 6 * sigma + 5 / draws,
          `token ${i}: ${counts[i] / draws} for ${p[i]}`,
        );
      }
    });
  }

  it("penalises only the last tokens", () => {
    const logits = Float32Array.of(5, 4, 3);
    const sampler = new Sampler({ temperature: 0, repetitionPenalty: 3, penaltyLastN: 2 });
    assertEquals(sampler.needsHistory, true);
    assertEquals(sampler.sample(logits, [0]), 1);
    assertEquals(sampler.sample(logits, [0, 1, 2]), 0);
    assertEquals([...logits], [5, 4, 3]);
    const all = new Sampler({ temperature: 0, presencePenalty: 3, penaltyLastN: -1 });
    assertEquals(all.sample(logits, [0, 1, 1, 1]), 2);
    assertEquals(new Sampler().needsHistory, false);
    assertEquals(new Sampler({ repetitionPenalty: 2, penaltyLastN: 0 }).needsHistory, false);
  });
  it("refuses broken logits", () => {
    for (const options of [{ temperature: 0 }, {}, off]) {
      const sampler = new Sampler(options);
      const error = assertThrows(() => sampler.sample(Float32Array.of(1, NaN)), MllmError, "token 1 is NaN");
      assertEquals(error.code, "backend");
      assertThrows(() => sampler.sample(Float32Array.of(1, Infinity)), MllmError, "infinite");
      assertThrows(() => sampler.sample(Float32Array.of(-Infinity)), MllmError, "barred");
      assertThrows(() => sampler.sample(new Float32Array(0)), MllmError, "barred");
    }
  });
  it("never draws a barred token", () => {
    const sampler = new Sampler({ ...off, temperature: 1e6, seed: 1 });
    const logits = Float32Array.of(-Infinity, 0, -Infinity, 0, -Infinity);
    for (let i = 0; i < 1000; i++) assertEquals(sampler.sample(logits) % 2, 1);
  });
  it("checks its settings", () => {
    const bad: Record<string, unknown>[] = [
      { temperature: -1 },
      { temperature: NaN },
      { topK: 1.5 },
      { topP: 1.1 },
      { minP: "0.1" },
      { topK: Infinity },
      { repetitionPenalty: 0 },
      { penaltyLastN: -2 },
      { seed: 0.5 },
      { heat: 1 },
    ];
    for (const options of bad) assertThrows(() => new Sampler(options), MllmError, Object.keys(options)[0]);
    assertThrows(() => new Sampler({ topK: Infinity }), MllmError, "not Infinity");
    assertEquals(new Sampler({ topK: undefined }).options.topK, 40);
  });
  it("is quick on a large vocabulary", () => {
    const logits = randomLogits(151_936, 9);
    for (const options of [{}, { topK: 0 }, { topK: 0, topP: 1, minP: 0.05 }, off]) {
      const sampler = new Sampler({ ...options, seed: 1 });
      const start = performance.now();
      for (let i = 0; i < 10; i++) sampler.sample(logits);
      assert((performance.now() - start) / 10 < 500);
    }
  });
});

describe("Random", () => {
  it("has a stream of its own for each seed of 53 bits", () => {
    const first = (seed: number) => new Random(seed).next();
    const seeds = [0, 1, 6949403057, 2 ** 32, 2 ** 32 + 1, 2 ** 33, 2 ** 53 - 1, -1];
    assertEquals(new Set(seeds.map(first)).size, seeds.length);
  });
  it("is uniform and depends on all of the seed", () => {
    const random = new Random(1);
    let sum = 0;
    for (let i = 0; i < 10_000; i++) sum += random.next();
    assert(Math.abs(sum / 10_000 - 0.5) < 0.02);
    assertNotEquals(new Random(1).bits(), new Random(1 + 2 ** 32).bits());
    assertNotEquals(new Random(0).bits(), new Random(0.5 + 2 ** 40).bits());
  });
});
