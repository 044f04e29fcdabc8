/**
 * What level amx promises of a whole model, on this CPU's tiles or on emulated ones: below 64 rows the bits of
 * avx512vnni; from there on bf16 products, whose bits depend neither on the number of rows, threads nor capture.
 */
import { openBackend } from "@mllm/core";
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { embeddedModelPath, type Evaluation, loadModel, type LoadOptions, perplexity } from "./mod.ts";
import { maxAbsDifference, Oracle, sameBits } from "./testing/oracle.ts";
import { testdata } from "./testing/testdata.ts";
import { amxLevel } from "../../tools/testing/x86_levels.ts";

const ROWS_MIN = 64;
const amx = await amxLevel();
const skip = amx === undefined ? "needs AVX-512 with VNNI, BF16, VBMI and VBMI2" : false;

type Run = Partial<LoadOptions> & { path?: string; level?: string; threads?: number; activations?: "i8" | "f32" };

async function withModel<T>(run: Run, use: (model: Awaited<ReturnType<typeof loadModel>>) => T) {
  const { path = embeddedModelPath, level = "amx", threads = 2, activations = "i8", ...options } = run;
  using backend = await openBackend(amx!.plugin, { level, threads, activations });
  using model = await loadModel(path, { ...options, backend });
  return await use(model);
}

async function logitsOf(ids: number[], run: Run): Promise<{ logits: Float32Array; vocabSize: number }> {
  return await withModel(run, async (model) => {
    const { logits }: Evaluation = await model.evaluate(ids);
    return { logits, vocabSize: model.network.config.vocabSize };
  });
}

/** A conversation that the demonstration model holds itself, so that its perplexity is that of text it knows. */
async function textIds(): Promise<number[]> {
  return await withModel({ threads: 1 }, async (model) => {
    const chat = model.chat();
    for (const question of ["Hello!", "What is this project?", "How do I use a real model here?"]) {
      for await (const _ of chat.send(question, { sampling: { temperature: 0 } }));
    }
    const turns = chat.messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`);
    return model.tokenizer.encode(turns.join(""));
  });
}

describe("level amx", { skip }, () => {
  it("has the bits of avx512vnni below 64 rows, and others from there on", async () => {
    const ids = await textIds();
    for (const [count, equal] of [[ROWS_MIN - 1, true], [ROWS_MIN, false]] as const) {
      const [tiles, vectors] = [
        await logitsOf(ids.slice(0, count), {}),
        await logitsOf(ids.slice(0, count), { level: "avx512vnni" }),
      ];
      assertEquals(sameBits(tiles.logits, vectors.logits), equal, `${count} rows`);
    }
  });

  it("gives a row the same bits in every run of at least 64 rows", async () => {
    const ids = (await textIds()).slice(0, 110);
    const whole = await logitsOf(ids, { threads: 1 });
    for (const run of [{ threads: 2 }, { eager: true }]) {
      assert(sameBits(whole.logits, (await logitsOf(ids, run)).logits), JSON.stringify(run));
    }
    const parts = await logitsOf(ids, { chunk: ROWS_MIN }); // 64 rows, and 46 that differ by what rounding does
    const head = ROWS_MIN * whole.vocabSize;
    assert(sameBits(whole.logits.subarray(0, head), parts.logits.subarray(0, head)));
    assert(!sameBits(whole.logits, parts.logits));
    const difference = maxAbsDifference(whole.logits, parts.logits);
    const largest = whole.logits.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
    assert(difference < 0.02 * largest, `logits of up to ${largest} differ by ${difference}`);
  });

  it("is as accurate as int8 activations have to be", async () => {
    const ids = await textIds();
    const score = async (run: Run) => (await withModel(run, (m) => perplexity(m, ids, 128))).ppl;
    const exact = await score({ activations: "f32" });
    const tiles = await score({});
    assert(Math.abs(tiles / exact - 1) < 0.005, `perplexity ${tiles}, with f32 activations ${exact}`);
  });

  it("has the bits of avx512vnni with f32 activations, and the reference logits", async () => {
    const ids = (await textIds()).slice(0, 80);
    const f32: Run = { activations: "f32" };
    const vectors = await logitsOf(ids, { ...f32, level: "avx512vnni" });
    assert(sameBits((await logitsOf(ids, f32)).logits, vectors.logits));
    const oracle = await Oracle.open(testdata("qwen2-legacyq.oracle.safetensors"));
    const { logits } = await logitsOf(oracle.ints("ids.33"), { ...f32, path: testdata("qwen2-legacyq.gguf") });
    const difference = maxAbsDifference(logits, oracle.floats("logits.33"));
    assert(difference <= 2e-4, `logits differ by ${difference}`);
  });
});
