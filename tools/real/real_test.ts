/**
 * `deno task test:real`: the real Qwen2.5-Coder 0.5B file (Q4_K_M, fetched by `deno task fetch:real qwen`) against its
 * oracle, Hugging Face transformers on the dequantised weights, which lies beside the checkout in `../shared`; and a
 * conversation of three turns. Skips with a reason what is not there.
 */
import { x86 } from "@mllm/backend-x86";
import { type LanguageModel, loadModel, type LoadOptions, perplexity } from "@mllm/models";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { maxAbsDifference, Oracle } from "../../packages/models/testing/oracle.ts";
import { REAL_MODELS_FOLDER, realModels } from "../fetch_real.ts";
import { goldenPath, skipWithout } from "../testing/golden.ts";
import { repositoryRoot } from "../workspace.ts";

/** Gaps of the two best logits below this are decided by rounding. */
const GAP_MIN = 0.02;

interface RealOracle {
  prompts: { prompt: string; text: string; n: number; reply: string; gaps: number[] }[];
  ppl: { ctx: number; n: number; ppl: number };
}

const file = `${repositoryRoot()}/${REAL_MODELS_FOLDER}/${realModels[0].file}`;
const shared = goldenPath("real/");

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

const here = exists(file);
const noModel = here ? false : "run `deno task fetch:real qwen` first";
const noOracle = noModel || skipWithout(shared);

async function withModel(options: Partial<LoadOptions>, check: (model: LanguageModel) => Promise<void>): Promise<void> {
  using model = await loadModel(file, { backend: x86, context: 1024, ...options });
  await check(model);
}

async function readOracle(): Promise<{ tensors: Oracle; json: RealOracle }> {
  const base = `${shared}qwen2.5-coder-0.5b-instruct-q4_k_m`;
  const json = JSON.parse(Deno.readTextFileSync(`${base}.json`));
  return { tensors: await Oracle.open(`${base}.safetensors`), json };
}

/** How many tokens agree before the first that a tiny gap may have turned. */
function decidedTokens(gaps: number[]): number {
  const turned = gaps.findIndex((gap) => gap < GAP_MIN);
  return turned < 0 ? gaps.length : turned;
}

describe("Qwen2.5-Coder 0.5B Q4_K_M", () => {
  it("f32 activations: tokens, logits and text of the oracle", { skip: noOracle }, async () => {
    const { tensors, json } = await readOracle();
    await withModel({ activations: "f32" }, async (model) => {
      for (const [i, prompt] of json.prompts.entries()) {
        const ids = tensors.ints(`ids.${i}`);
        assertEquals(model.tokenizer.encode(prompt.text), ids);
        const logits = Float32Array.from(await model.forward(ids, 0));
        const difference = maxAbsDifference(logits, tensors.floats(`logits.${i}`));
        assert(difference <= 2e-3, `logits of prompt ${i} differ by ${difference}`);
        const generation = model.generate(ids, { maxTokens: 48, ignoreEos: true, sampling: { temperature: 0 } });
        for await (const _ of generation);
        const count = decidedTokens(prompt.gaps);
        assertEquals(generation.tokens.slice(0, count), tensors.ints(`greedy.${i}`).slice(0, count));
      }
    });
  });

  it("f32 activations: perplexity within 1e-3 of the oracle", { skip: noOracle }, async () => {
    const { tensors, json } = await readOracle();
    await withModel({ activations: "f32" }, async (model) => {
      const { ppl, count } = await perplexity(model, tensors.ints("ppl.ids"), json.ppl.ctx);
      assertEquals(count, json.ppl.n);
      assert(Math.abs(ppl / json.ppl.ppl - 1) <= 1e-3, `PPL ${ppl}, the oracle has ${json.ppl.ppl}`);
    });
  });

  it("i8 activations: perplexity within 0.5 % of the oracle", { skip: noOracle }, async () => {
    const { tensors, json } = await readOracle();
    await withModel({ activations: "i8" }, async (model) => {
      const { ppl } = await perplexity(model, tensors.ints("ppl.ids"), json.ppl.ctx);
      assert(Math.abs(ppl / json.ppl.ppl - 1) <= 5e-3, `PPL ${ppl}, the oracle has ${json.ppl.ppl}`);
      console.log(`PPL with int8 activations ${ppl.toFixed(4)}, oracle ${json.ppl.ppl.toFixed(4)}`);
    });
  });

  it("holds a conversation of three turns", { skip: noModel }, async () => {
    await withModel({}, async (model) => {
      const chat = model.chat();
      const say = async (text: string) => {
        let reply = "";
        const options = { sampling: { temperature: 0 }, maxTokens: 200 };
        for await (const piece of chat.send(text, options)) reply += piece;
        return reply;
      };
      await say("Hi! My name is Maria and I like TypeScript.");
      assertMatch(await say("What is my name?"), /Maria/);
      const { promptTokens, cachedTokens } = chat.lastStats!;
      const least = model.backend.runThresholds.at(-1)!; // the question and what is run again with it
      assertEquals(promptTokens - cachedTokens, least, "the earlier turns were run again");
      assertMatch(await say("Write a TypeScript function add that adds two numbers."), /function add\(.*number/);
      assertEquals(chat.messages.length, 6);
    });
  });
});
