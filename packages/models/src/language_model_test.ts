import { x86 } from "@mllm/backend-x86";
import { MllmError, openBackend } from "@mllm/core";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { maxAbsDifference, sameBits } from "../testing/oracle.ts";
import type { GenerateOptions, Generation } from "./generation/generate.ts";
import { embeddedModelPath } from "./embedded_model.ts";
import type { LanguageModel } from "./language_model.ts";
import { loadModel, type LoadOptions } from "./load_model.ts";
import { checkEvaluation, estimateMemory } from "./memory.ts";
import { perplexity } from "./perplexity.ts";

async function withModel(options: Partial<LoadOptions>, check: (model: LanguageModel) => Promise<void>): Promise<void> {
  using model = await loadModel(embeddedModelPath, { backend: x86, threads: 2, context: 128, ...options });
  await check(model);
}

const PROMPT = "<|im_start|>user\nWhat is this project?<|im_end|>\n<|im_start|>assistant\n";

async function run(generation: Generation): Promise<string> {
  let text = "";
  for await (const piece of generation) text += piece.text;
  return text;
}

function greedy(model: LanguageModel, options: GenerateOptions = {}): Generation {
  return model.generate(model.tokenizer.encode(PROMPT), { sampling: { temperature: 0 }, ...options });
}

describe("LanguageModel", () => {
  it("ends at an EOS token, which is in the tokens and not in the text", async () => {
    await withModel({}, async (model) => {
      const generation = greedy(model);
      const text = await run(generation);
      assertEquals(generation.stats.stop, "eos");
      assertEquals(generation.text, text);
      assert(model.eosIds.includes(generation.tokens.at(-1)!));
      assert(!text.includes("<|im_end|>") && text.length > 10, text);
      assertEquals(generation.stats.generatedTokens, generation.tokens.length);
    });
  });

  it("ends at maxTokens, at 0 too, and at a full context", async () => {
    await withModel({}, async (model) => {
      for (const maxTokens of [0, 1, 5]) {
        const generation = greedy(model, { maxTokens, ignoreEos: true });
        await run(generation);
        assertEquals([generation.tokens.length, generation.stats.stop], [maxTokens, "length"]);
        assertEquals(generation.stats.contextFull, false);
      }
      const endless = greedy(model, { ignoreEos: true });
      await run(endless);
      assertEquals([endless.stats.stop, endless.stats.contextFull], ["length", true]);
      assertEquals(endless.stats.promptTokens + endless.tokens.length, model.context + 1);
    });
  });

  it("ends before a stop string, however the tokens cut it", async () => {
    await withModel({}, async (model) => {
      const whole = await run(greedy(model));
      const stop = whole.slice(9, 16);
      const generation = greedy(model, { stopStrings: [stop] });
      assertEquals(await run(generation), whole.slice(0, whole.indexOf(stop)));
      assertEquals(generation.stats.stop, "stop");
    });
  });

  it("runs only what the cache lacks, with the same result", async () => {
    await withModel({ chunk: 4 }, async (model) => {
      const first = greedy(model);
      await run(first);
      const again = greedy(model);
      await run(again);
      assertEquals(again.stats.cachedTokens, again.stats.promptTokens - 1);
      assertEquals(again.tokens, first.tokens);
      model.clearCache();
      assertEquals(model.cachedPrefix(model.tokenizer.encode(PROMPT)), 0);
    });
  });

  it("gives a long prompt the same bits whatever part of it is cached", async () => {
    using model = await loadModel(embeddedModelPath, { backend: x86, threads: 1, context: 256 });
    const ids = Array.from({ length: 70 }, (_, i) => 5 + i * i % 90);
    const runPrompt = async () => {
      const generation = model.generate(ids, { maxTokens: 1 });
      await run(generation);
      const logits = Float32Array.from(await model.forward([7], ids.length)); // sees keys and values of the whole prompt
      return { cached: generation.stats.cachedTokens, logits };
    };
    const whole = await runPrompt();
    const again = await runPrompt();
    const least = model.backend.runThresholds.at(-1)!; // as many run again
    assertEquals([whole.cached, again.cached], [0, ids.length - least]);
    assert(sameBits(whole.logits, again.logits));
  });

  it("gives the last of many tokens the same logits in an evaluation and alone", async () => {
    using model = await loadModel(embeddedModelPath, { backend: x86, threads: 1, context: 256 });
    const ids = Array.from({ length: 129 }, (_, i) => 5 + i * i % 90); // one more than an evaluation runs at once
    const { logits } = await model.evaluate(ids);
    const last = logits.subarray(-model.network.config.vocabSize);
    const alone = await model.forward(ids, 0);
    // At level amx the head multiplies many rows in bf16, one row in int8.
    if (model.backend.device.level === "amx") assert(maxAbsDifference(last, alone) < 0.2);
    else assert(sameBits(last, alone));
    const nll = (await model.score([...ids, 7])).at(-1)!;
    assert(Math.abs(nll - Math.log(last.reduce((sum, one) => sum + Math.exp(one - last[7]), 0))) < 1e-4);
  });

  it("refuses options of a generation that do not exist or have a wrong type", async () => {
    await withModel({}, (model) => {
      const refused = (options: unknown, text: string) => {
        const error = assertThrows(() => model.generate([1], options as GenerateOptions), MllmError, text);
        assertEquals(error.code, "invalid_argument");
      };
      refused({ temperature: 0 }, 'generate has no option "temperature". There are: maxTokens, sampling, ');
      refused({ sampling: { temprature: 0 } }, 'sampling has no option "temprature". There are: temperature, ');
      refused({ sampling: { temperature: "1" } }, 'temperature must be a number from 0 to 1000000, not "1"');
      refused({ maxTokens: "5" }, 'of at least 0, not "5"');
      refused(null, "the options of generate must be an object, not null");
      refused(20, "the options of generate must be an object, not 20");
      refused({ stopStrings: "END" }, 'stopStrings must be an array of texts, not "END"');
      return Promise.resolve();
    });
  });

  it("refuses text where ids belong, and what is no text where that does", async () => {
    await withModel({}, async (model) => {
      const ids = [1, 2] as unknown as string;
      assertThrows(() => model.tokenizer.encode(ids), MllmError, "must be a text, not object");
      await assertRejects(() => model.chat().send(ids).next(), MllmError, "a message must be a text, not object");
      const text = "hello" as unknown as number[];
      assertThrows(() => model.generate(text, {}), MllmError, "not as string");
      await assertRejects(() => model.forward(text, 0), MllmError, "not as string");
    });
  });

  it("two generations in turn do not disturb each other", async () => {
    await withModel({}, async (model) => {
      const alone = greedy(model, { maxTokens: 12, ignoreEos: true });
      await run(alone);
      const a = greedy(model, { maxTokens: 12, ignoreEos: true });
      const b = model.generate(model.tokenizer.encode("Something else entirely"), { maxTokens: 12, ignoreEos: true });
      const [iterateA, iterateB] = [a[Symbol.asyncIterator](), b[Symbol.asyncIterator]()];
      for (let i = 0; i < 13; i++) {
        await iterateA.next();
        await iterateB.next();
      }
      assertEquals(a.tokens, alone.tokens);
    });
  });

  it("stops at the signal, in the prompt and in the reply, and goes on from there", async () => {
    await withModel({ chunk: 2 }, async (model) => {
      const inPrompt = new AbortController();
      const generation = greedy(model, { signal: inPrompt.signal, onPrompt: () => inPrompt.abort() });
      assertEquals(await run(generation), "");
      assertEquals([generation.stats.stop, generation.tokens.length], ["aborted", 0]);
      assertEquals(model.cachedPrefix(model.tokenizer.encode(PROMPT)), 2);
      const done: number[] = [];
      await model.forward([1, 2, 3, 4, 5, 6, 7], 0, (tokens) => done.push(tokens) < 3);
      assertEquals([done, model.cachedPrefix([1, 2, 3, 4, 5, 6, 7])], [[2, 4, 6], 6]);

      const inReply = new AbortController();
      const reply = greedy(model, { signal: inReply.signal });
      for await (const _ of reply) if (reply.tokens.length === 3) inReply.abort();
      assertEquals([reply.stats.stop, reply.tokens.length], ["aborted", 3]);
      const left = greedy(model);
      for await (const _ of left) break;
      assertEquals(left.stats.stop, "aborted");
    });
  });

  it("refuses overlapping calls, and to be closed meanwhile", async () => {
    await withModel({}, async (model) => {
      const ids = model.tokenizer.encode(PROMPT);
      const running = model.forward(ids, 0);
      await assertRejects(() => model.forward(ids, 0), MllmError, "busy");
      assertThrows(() => model.clearCache(), MllmError, "busy");
      assertThrows(() => model[Symbol.dispose](), MllmError, "busy");
      await running;
      assertEquals(model.cachedPrefix(ids), ids.length);
    });
  });

  it("decodes on JavaScript's thread, but not behind another model's run, whose time is not a token's", async () => {
    const { now } = performance;
    using backend = await openBackend(x86, { threads: 1 });
    try {
      await withModel({ backend }, async (a) => {
        await withModel({ backend }, async (b) => {
          performance.now = () => 0; // tokens take no time
          await b.forward([1], 0);
          const decode = b.programs.get("decode")!;
          let here = 0;
          decode.run = (options) => (here++, Object.getPrototypeOf(decode).run.call(decode, options));
          await b.forward([2], 1);
          assertEquals(here, 1);
          const alone = (await b.forward([3], 2)).slice();
          assertEquals([here, backend.isRunning], [2, false]);

          let ms = 0;
          performance.now = () => ms += 1000;
          const prompt = a.forward(a.tokenizer.encode(PROMPT), 0);
          assert(backend.isRunning);
          assert(sameBits(await b.forward([3], 2), alone));
          await prompt;
          assertEquals([here, backend.isRunning], [2, false]);

          performance.now = () => 0;
          await b.forward([4], 3);
          assertEquals(here, 3);
        });
      });
    } finally {
      performance.now = now;
    }
  });

  it("leaves the event loop a turn now and then while it decodes", async () => {
    for (const eager of [false, true]) {
      await withModel({ eager }, async (model) => {
        let turns = 0;
        const timer = setInterval(() => turns++, 0);
        await model.forward([1], 0);
        for (let i = 0; i < 100_000 && turns < 3; i++) await model.forward([1], 1);
        clearInterval(timer);
        assert(turns >= 3);
      });
    }
  });

  it("refuses an evaluation whose result no array can hold", () => {
    const qwen = { vocabSize: 151_936, hiddenSize: 1024 };
    checkEvaluation(qwen, 7000, 0);
    const error = assertThrows(() => checkEvaluation(qwen, 8192, 0), MllmError, "at most 7067 tokens");
    assertEquals(error.code, "out_of_memory");
    assertThrows(() => checkEvaluation(qwen, 7000, 28), MllmError, "leave the hidden states out");
  });

  it("says that it was disposed, and which it was, to whoever uses it then", async () => {
    using backend = await openBackend(x86, { threads: 1 });
    const model = await loadModel(embeddedModelPath, { backend, context: 128 });
    const [chat, waiting, running] = [model.chat(), greedy(model), greedy(model)[Symbol.asyncIterator]()];
    await running.next();
    model[Symbol.dispose]();
    model[Symbol.dispose]();
    const uses: (() => unknown)[] = [
      () => model.forward([1], 0),
      () => model.evaluate([1]),
      () => model.score([1, 2]),
      () => model.generate([1]),
      () => model.chat(),
      () => model.clearCache(),
      () => chat.send("hello").next(),
      () => run(waiting),
      () => running.next(),
    ];
    for (const use of uses) {
      const error = await assertRejects(async () => await use(), MllmError, "the model was disposed (");
      assertEquals([error.code, error.file], ["invalid_argument", embeddedModelPath]);
    }
    assertEquals(backend.liveAllocations, 0);
  });

  it("logits outlive the model", async () => {
    let logits = new Float32Array() as Float32Array;
    await withModel({}, async (model) => {
      logits = await model.forward([1, 2, 3], 0);
    });
    assert(logits.every(Number.isFinite));
  });

  it("names bad ids, positions and lengths", async () => {
    await withModel({ context: 8 }, async (model) => {
      await assertRejects(() => model.forward([], 0), MllmError, "no tokens");
      await assertRejects(() => model.forward([-1], 0), MllmError, "token id -1");
      await assertRejects(() => model.forward([1e6], 0), MllmError, "token id 1000000");
      for (const position of [-1, 1.5, NaN]) {
        await assertRejects(() => model.forward([1], position), MllmError, "position");
      }
      await assertRejects(() => model.forward([1], 1), MllmError, "behind");
      await assertRejects(() => model.evaluate([1, 2, 3, 4, 5, 6, 7, 8, 9]), MllmError, "context of 8");
      const larger = "context of 8. Shorten the prompt, or load the model with a larger `context`, up to 1024";
      await assertRejects(() => run(model.generate([1, 2, 3, 4, 5, 6, 7, 8, 9])), MllmError, larger);
    });
  });

  it("scores as its logits say, eager and captured alike", async () => {
    const ids = Array.from({ length: 50 }, (_, i) => (i * 37) % 500);
    const scores: Float32Array[] = [];
    for (const eager of [false, true]) {
      await withModel({ eager, chunk: 16 }, async (model) => {
        const nll = await model.score(ids);
        scores.push(nll);
        const { logits } = await model.evaluate(ids);
        const { vocabSize } = model.network.config;
        const row = logits.subarray(10 * vocabSize, 11 * vocabSize);
        const sum = row.reduce((total, logit) => total + Math.exp(logit), 0);
        assert(Math.abs(nll[10] - (Math.log(sum) - row[ids[11]])) < 1e-4);
        const { ppl, count } = await perplexity(model, ids, 25);
        assertEquals(count, 48);
        assert(ppl > 1);
      });
    }
    assert(sameBits(scores[0], scores[1]));
  });

  it("refuses what does not fit, with the numbers", async () => {
    const load = (options: Partial<LoadOptions>) => loadModel(embeddedModelPath, { backend: x86, ...options });
    const error = await assertRejects(() => load({ memoryLimit: 1 << 20 }), MllmError, "KV cache");
    assertEquals(error.code, "out_of_memory");
    await assertRejects(
      () => load({ context: 0 }),
      MllmError,
      "`context` must be a whole number from 1 to 1024 (the model's limit), not 0",
    );
    await assertRejects(() => load({ chunk: 0 }), MllmError, "`chunk` must");
  });

  it("needs no memory for a head beside a tied table", async () => {
    await withModel({}, (model) => {
      const { backend, network: { config }, checkpoint: { weights }, settings, memory } = model;
      const table = weights.get("model.embed_tokens.weight")!;
      const both = [...weights.values(), { ...table, name: "lm_head.weight" }];
      assertEquals(estimateMemory(backend, config, both, settings), memory);
      const untied = estimateMemory(backend, { ...config, tieWordEmbeddings: false }, both, settings);
      assert(untied.weights > memory.weights);
      return Promise.resolve();
    });
  });

  it("refuses options and paths of a wrong type, naming what was given", async () => {
    const refused = async (path: unknown, options: unknown, text: string) => {
      const error = await assertRejects(() => loadModel(path as string, options as LoadOptions), MllmError, text);
      assertEquals(error.code, "invalid_argument");
    };
    await refused(embeddedModelPath, { backend: x86, activations: "i4" }, '`activations` must be "i8" or "f32"');
    for (const name of ["kvDtype", "keyDtype", "valueDtype"]) {
      const text = `\`${name}\` must be one of f32, f16, q8_0, q4_0, not "f64"`;
      await refused(embeddedModelPath, { backend: x86, [name]: "f64" }, text);
    }
    for (const options of [undefined, null, {}, { backend: "x86" }]) {
      await refused(embeddedModelPath, options, "no backend plugin is given");
    }
    const unknown = 'loadModel has no option "contextLength". There are: backend, level, ';
    await refused(embeddedModelPath, { backend: x86, contextLength: 64 }, unknown);
    await refused(embeddedModelPath, { backend: x86, context: "64" }, '(the model\'s limit), not "64"');
    await refused(undefined, { backend: x86 }, "the path of a model must be a string, not undefined");
  });
});
