import { x86 } from "@mllm/backend-x86";
import { MllmError } from "@mllm/core";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { goldenPath, skipWithout } from "../../../tools/testing/golden.ts";
import { Oracle } from "../testing/oracle.ts";
import { testdata } from "../testing/testdata.ts";
import { loadModel } from "./load_model.ts";
import { type Perplexity, perplexity } from "./perplexity.ts";

/** Scores token t behind s with s + t / 100. */
const model = {
  context: 64,
  score: (ids: readonly number[]) => Promise.resolve(Float32Array.from(ids.slice(1), (id, i) => ids[i] + id / 100)),
};
const IDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const rounded = (nll: Float32Array) => [...nll].map((value) => Math.round(value * 100) / 100);

describe("perplexity", () => {
  it("scores all but the first token of each full window", async () => {
    const { nll, count, ppl, error } = await perplexity(model, IDS, 4);
    assertEquals(rounded(nll), [1.02, 2.03, 3.04, 5.06, 6.07, 7.08]);
    const mean = nll.reduce((sum, one) => sum + one) / 6;
    const variance = nll.reduce((sum, one) => sum + one * one, 0) / 6 - mean * mean;
    assertEquals(count, 6);
    assertAlmostEquals(ppl, Math.exp(mean), 1e-9);
    assertAlmostEquals(error, ppl * Math.sqrt(variance / 5), 1e-3);
    assertEquals(rounded((await perplexity(model, [1, 2, 3], 4)).nll), [1.02, 2.03]);
    assertEquals((await perplexity(model, [1, 2])).error, 0);
  });

  it("or, as llama.cpp, what is predicted from the middle of a window on, with a BOS before it", async () => {
    assertEquals(rounded((await perplexity(model, IDS, 4, { secondHalf: true })).nll), [3.04, 7.08]);
    assertEquals(rounded((await perplexity(model, IDS, 5, { secondHalf: true })).nll), [3.04, 4.05, 8.09, 9.1]);
    assertEquals(rounded((await perplexity(model, IDS, 5, { bosId: 0 })).nll).slice(0, 2), [0.02, 2.03]);
    const ids = Array.from({ length: 512 }, () => 1);
    assertEquals((await perplexity({ ...model, context: 512 }, ids, 512, { secondHalf: true })).count, 255);
  });

  it("tells the result after each window", async () => {
    const told: [number, number, number, number][] = [];
    const onWindow = ({ ppl, count }: Perplexity, done: number, total: number) => told.push([ppl, count, done, total]);
    const { ppl } = await perplexity(model, IDS, 4, { onWindow });
    assertEquals(told.map(([, ...counts]) => counts), [[3, 1, 2], [6, 2, 2]]);
    assertEquals([told[0][0], told[1][0]], [(await perplexity(model, IDS.slice(0, 4), 4)).ppl, ppl]);
  });

  it("refuses windows beyond the context", async () => {
    for (const window of [0, 1, 65, 3.5]) {
      await assertRejects(() => perplexity(model, IDS, window), MllmError, `from 2 to 64, not ${window}`);
    }
  });

  it("refuses what leaves nothing to score", async () => {
    await assertRejects(() => perplexity(model, [1]), MllmError, "at least 2 ids to score any, not 1");
    const half = { secondHalf: true };
    await assertRejects(() => perplexity(model, IDS, 2, half), MllmError, "from 3 to 64, not 2");
    await assertRejects(() => perplexity(model, [1, 2], 3, half), MllmError, "at least 3 ids to score any, not 2");
    assertEquals(rounded((await perplexity(model, [1, 2, 3], 3, half)).nll), [2.03]);
  });

  const shared = goldenPath("ppl/");
  it("is that of Hugging Face transformers", { skip: skipWithout(shared) }, async () => {
    using model = await loadModel(testdata("qwen3-tied"), { backend: x86, activations: "f32", context: 128 });
    const oracle = await Oracle.open(`${shared}ppl.safetensors`);
    const ids = model.tokenizer.encode(await Deno.readTextFile(`${shared}text.txt`), { parseSpecial: false });
    assertEquals(ids.slice(0, 2000), oracle.ints("qwen3-tied.ids"));
    const expected = oracle.floats("qwen3-tied.nll_nonoverlap").subarray(0, 15 * 127);
    const { nll } = await perplexity(model, ids.slice(0, 2000), 128);
    assertEquals(nll.length, expected.length);
    assert(nll.every((one, i) => Math.abs(one - expected[i]) < 1e-3));
    const half = await perplexity(model, ids.slice(0, 2000), 128, { secondHalf: true });
    const ofHalf = expected.filter((_, i) => i % 127 >= 64);
    assertEquals(half.count, 15 * 63);
    assertAlmostEquals(Math.log(half.ppl), ofHalf.reduce((sum, one) => sum + one, 0) / ofHalf.length, 1e-4);
  });
});
