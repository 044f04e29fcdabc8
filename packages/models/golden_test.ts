/**
 * Every Qwen2 and Qwen3 reference model, at every ISA level of this CPU, against logits, greedy tokens and hidden states
 * of Hugging Face transformers. Runs on the copies in `testdata` and, where it is present, on all of `../shared/golden`.
 */
import { type Backend, openBackend, probeBackend } from "@mllm/core";
import { x86 } from "@mllm/backend-x86";
import { assert, assertEquals } from "@std/assert";
import { afterAll, describe, it } from "@std/testing/bdd";
import { fileURLToPath } from "node:url";
import { type LanguageModel, loadModel, type LoadOptions } from "./mod.ts";
import { maxAbsDifference, Oracle, sameBits } from "./testing/oracle.ts";
import { goldenPath, skipWithout } from "../../tools/testing/golden.ts";

const LOGITS_TOLERANCE = 2e-4;
const HIDDEN_TOLERANCE = 1e-4;

interface Golden {
  name: string;
  model: string;
  oracle: string;
  hidden?: string;
}

const local = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const shared = goldenPath("");

function folder(base: string, name: string): Golden {
  return {
    name,
    model: `${base}${name}`,
    oracle: `${base}${name}/oracle.safetensors`,
    hidden: `${base}${name}/hidden33.safetensors`,
  };
}

function ggufFile(base: string, name: string): Golden {
  return { name: `${name}.gguf`, model: `${base}${name}.gguf`, oracle: `${base}${name}.oracle.safetensors` };
}

function goldens(): Golden[] {
  const own = local("./testdata/");
  if (shared === undefined) return [folder(own, "qwen3-tied"), ggufFile(own, "qwen2-legacyq")];
  const models = `${shared}models/`;
  const gguf = `${shared}gguf/`;
  const isDense = (name: string) => /^qwen[23]-/.test(name);
  return [
    ...[...Deno.readDirSync(models)].map(({ name }) => name).filter(isDense).sort().map((name) => folder(models, name)),
    ...[...Deno.readDirSync(gguf)].map(({ name }) => name).filter((name) => isDense(name) && name.endsWith(".gguf"))
      .sort().map((name) => ggufFile(gguf, name.replace(".gguf", ""))),
  ];
}

async function greedy(model: LanguageModel, prompt: number[], count: number): Promise<number[]> {
  const generation = model.generate(prompt, { maxTokens: count, ignoreEos: true, sampling: { temperature: 0 } });
  for await (const _ of generation);
  return [...generation.tokens];
}

async function checkLogits(model: LanguageModel, oracle: Oracle): Promise<void> {
  for (const n of [1, 7, 33, 80].filter((n) => oracle.has(`ids.${n}`))) {
    const { logits } = await model.evaluate(oracle.ints(`ids.${n}`));
    const difference = maxAbsDifference(logits, oracle.floats(`logits.${n}`));
    assert(difference <= LOGITS_TOLERANCE, `logits of ${n} tokens differ by ${difference}`);
    model.clearCache();
    assertEquals(await greedy(model, oracle.ints(`ids.${n}`), 24), oracle.ints(`greedy.${n}`));
  }
}

async function checkHidden(model: LanguageModel, path: string, ids: number[]): Promise<void> {
  const hidden = await Oracle.open(path);
  const { hiddenStates } = await model.evaluate(ids, { hiddenStates: true });
  assert(hiddenStates.length > 0);
  for (const [i, values] of hiddenStates.entries()) {
    const difference = maxAbsDifference(values, hidden.floats(`h.layer.${i}`));
    assert(difference <= HIDDEN_TOLERANCE, `hidden states after layer ${i} differ by ${difference}`);
  }
}

const device = await probeBackend(x86);
const backends = new Map<string, Backend>();

async function backendFor(level: string, threads: number): Promise<Backend> {
  const key = `${level} ${threads}`;
  if (!backends.has(key)) backends.set(key, await openBackend(x86, { level, threads, activations: "f32" }));
  return backends.get(key)!;
}

/** Each modeling code eager and captured, whole and in chunks. */
const ways: readonly Pick<LoadOptions, "modeling" | "eager" | "chunk">[] = [
  { modeling: "fast", eager: false, chunk: 512 },
  { modeling: "plain", eager: false, chunk: 5 },
  { modeling: "fast", eager: true, chunk: 5 },
  { modeling: "plain", eager: true, chunk: 512 },
];

async function withModel(path: string, options: LoadOptions, check: (model: LanguageModel) => Promise<void>) {
  using model = await loadModel(path, options);
  await check(model);
}

describe("reference models", () => {
  afterAll(() => backends.forEach((backend) => backend[Symbol.dispose]()));

  it("finds all of them", { skip: skipWithout(shared) }, () => assert(goldens().length >= 6));
  for (const golden of goldens()) {
    for (const level of device.levels) {
      it(`${golden.name} at ${level}`, async () => {
        const oracle = await Oracle.open(golden.oracle);
        const ids = oracle.ints("ids.33");
        const runs: Float32Array[] = [];
        for (const threads of [1, 2]) {
          const backend = await backendFor(level, threads);
          for (const options of ways) {
            await withModel(golden.model, { backend, ...options }, async (model) => {
              if (threads === 2) await checkLogits(model, oracle);
              if (golden.hidden) await checkHidden(model, golden.hidden, ids);
              runs.push((await model.evaluate(ids)).logits);
            });
          }
        }
        for (const run of runs) {
          assert(sameBits(run, runs[0]), "modeling, eager, captured, chunks or threads change bits");
        }
      });
    }
  }

  for (const name of ["odd-qwen3", "odd-qwen2"]) {
    for (const level of device.levels) {
      it(`${name}, sizes that divide by nothing, at ${level}`, async () => {
        const path = local(`./testdata/${name}`);
        const oracle = await Oracle.open(`${path}/oracle.safetensors`); // made by tools/reference/odd_models.py
        for (const [threads, eager, chunk] of [[1, false, 512], [2, true, 7]] as const) {
          await withModel(path, { backend: await backendFor(level, threads), eager, chunk }, async (model) => {
            const { logits } = await model.evaluate(oracle.ints("ids"));
            const difference = maxAbsDifference(logits, oracle.floats("logits"));
            assert(difference <= LOGITS_TOLERANCE, `logits differ by ${difference}`);
          });
        }
      });
    }
  }

  it("keeps its memory balanced", async () => {
    const backend = await backendFor(device.level, 2);
    const before = backend.memoryInUse;
    for (const eager of [false, true]) {
      await withModel(goldens()[0].model, { backend, eager }, async (model) => {
        await greedy(model, [1, 2, 3], 4);
        const running = backend.memoryInUse;
        await greedy(model, [3, 2, 1], 8);
        assertEquals(backend.memoryInUse, running);
      });
      assertEquals(backend.memoryInUse, before);
    }
  });
});
