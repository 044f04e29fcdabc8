import { x86 } from "@mllm/backend-x86";
import { type KvDType, MllmError } from "@mllm/core";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { maxAbsDifference, sameBits } from "../testing/oracle.ts";
import { testdata } from "../testing/testdata.ts";
import { embeddedModelPath } from "./embedded_model.ts";
import { loadModel, type LoadOptions } from "./load_model.ts";

const someIds = (length: number) => Array.from({ length }, (_, i) => (i * i * 7 + 3 * i) % 500);
/** Two pages of the cache. */
const IDS = someIds(100);

/** Logits of the last of `ids`, those before run as one prompt and the last alone. */
async function logits(
  options: Partial<LoadOptions>,
  path = testdata("qwen3-tied"),
  ids = IDS,
): Promise<Float32Array> {
  using model = await loadModel(path, { backend: x86, threads: 1, activations: "f32", context: 256, ...options });
  await model.forward(ids.slice(0, -1), 0);
  return Float32Array.from(await model.forward(ids.slice(-1), ids.length - 1));
}

describe("types of the KV cache", () => {
  const pairs: [KvDType, KvDType, number][] = [
    ["f16", "f16", 1],
    ["q8_0", "q8_0", 1],
    ["q4_0", "q4_0", 3],
    ["q8_0", "q4_0", 3],
    ["f16", "q8_0", 1],
  ];
  for (const [keyDtype, valueDtype, most] of pairs) {
    it(`keys ${keyDtype}, values ${valueDtype}: equal bits in any chunks and threads, eager too`, async () => {
      const whole = await logits({ keyDtype, valueDtype });
      for (const options of [{ chunk: 7 }, { chunk: 1 }, { threads: 2 }, { eager: true, chunk: 33, threads: 2 }]) {
        const other = await logits({ keyDtype, valueDtype, ...options });
        assert(sameBits(whole, other), `other bits with ${JSON.stringify(options)}`);
      }
      const difference = maxAbsDifference(whole, await logits({ kvDtype: "f32" }));
      assert(difference > 0 && difference <= most, `logits differ by ${difference} from those with an f32 cache`);
    });
  }

  for (const kvDtype of ["f16", "q8_0"] as const) {
    it(`${kvDtype} and attention in int8: equal bits in chunks of 64 tokens and more, near those in float`, async () => {
      const run = (options: Partial<LoadOptions>) =>
        logits({ activations: "i8", kvDtype, ...options }, embeddedModelPath, someIds(211));
      const whole = await run({});
      for (const options of [{ chunk: 70 }, { threads: 2 }, { eager: true, chunk: 105, threads: 2 }]) {
        assert(sameBits(whole, await run(options)), `other bits with ${JSON.stringify(options)}`);
      }
      const difference = maxAbsDifference(whole, await run({ chunk: 31 }));
      assert(difference > 0 && difference < 1, `logits differ by ${difference} from those of short chunks`);
    });
  }

  it("keep nothing of a tail that was forgotten", async () => {
    const options = { backend: x86, context: 256, keyDtype: "q8_0", valueDtype: "q8_0" } as const;
    using model = await loadModel(testdata("qwen3-tied"), options);
    const ids = [...IDS, ...IDS]; // four pages
    const fresh = Float32Array.from(await model.forward(ids, 0));
    for (const kept of [0, 63, 64, 70, 128, 150]) {
      await model.forward(ids.map((id) => id + 1).slice(kept), kept);
      assert(sameBits(fresh, Float32Array.from(await model.forward(ids.slice(kept), kept))), `${kept} tokens kept`);
    }
  });

  it("take the memory that they say", async () => {
    const kv = async (options: Partial<LoadOptions>) => {
      using model = await loadModel(testdata("qwen3-tied"), { backend: x86, context: 128, ...options });
      const { keyDtype, valueDtype } = model.settings;
      return [model.memory.kv, keyDtype, valueDtype];
    };
    // 3 layers, 2 heads of 32 elements, 2 pages of 64 tokens.
    const elements = 3 * 2 * 32 * 128;
    const references = 3 * 2 * 2 * 32 * 2;
    assertEquals(await kv({}), [elements * 4, "f16", "f16"]);
    assertEquals(await kv({ kvDtype: "q8_0" }), [elements / 32 * 68 + references, "q8_0", "q8_0"]);
    assertEquals(await kv({ activations: "f32" }), [elements * 8, "f32", "f32"]);
    assertEquals(await kv({ kvDtype: "q4_0" }), [elements / 32 * (34 + 18) + references, "q8_0", "q4_0"]);
    assertEquals(await kv({ kvDtype: "q4_0", keyDtype: "q4_0" }), [elements / 32 * 36 + references, "q4_0", "q4_0"]);
  });

  it("refuse heads that are no whole blocks, before any weight is loaded", async () => {
    for (const [name, dtype] of [["kvDtype", "q4_0"], ["keyDtype", "q8_0"], ["valueDtype", "q4_0"]] as const) {
      const load = () => loadModel(testdata("qwen2-legacyq.gguf"), { backend: x86, [name]: dtype });
      const text = `\`${name}\`: ${dtype} takes heads of a multiple of 32 up to 1024 elements, not 16. Take f16 or f32`;
      assertEquals((await assertRejects(load, MllmError, text)).code, "invalid_argument");
    }
  });
});
