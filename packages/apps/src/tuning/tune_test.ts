/** `mllm tune` on a real backend and a tiny model: what is kept, what goes on, what never changes. */
import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { openBackend } from "@mllm/core";
import { x86 } from "@mllm/backend-x86";
import { FakeHost, type FakeHostOptions } from "../../testing/fake_host.ts";
import { mllmMain } from "../cli/main.ts";
import { openProgram } from "../open_engine.ts";
import { ProcessorWatch } from "./load.ts";
import { TunedStore } from "./tuned_store.ts";
import type { TunedTable } from "./tuned_table.ts";
import { LayersWorkload, suits, USUAL_DTYPES, USUAL_SIZES } from "./workloads.ts";

const MODEL = fileURLToPath(new URL("../../../models/testdata/qwen2-legacyq.gguf", import.meta.url));
const IDS = Array.from({ length: 40 }, (_, i) => i % 30);
const run = { threads: 2, context: 512 };
const quiet = { ...run, force: false, onTune: () => {} };

async function inFolder(use: (file: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(`${folder}/tuned.json`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function open(file: string, options: FakeHostOptions = {}) {
  const host = new FakeHost({ ...options, env: { MLLM_TUNED: file } });
  const watch = () => ({ isQuiet: () => true, [Symbol.dispose]: () => {} }); // whatever else this machine does
  const program = openProgram(host, "mllm", false, watch);
  return { host, program, engine: program.engine };
}

async function logits(file: string): Promise<Uint32Array> {
  using model = await open(file).engine.load(MODEL, run);
  const { logits } = await model.evaluate(IDS);
  const last = await model.forward(IDS.slice(0, 7), 0);
  return new Uint32Array([...new Uint32Array(logits.buffer), ...new Uint32Array(last.slice().buffer)]);
}

/** The table with other choices than the default everywhere. */
function changed(table: TunedTable): TunedTable {
  const measurements = table.measurements.map((one, i) => {
    const { variant: _, threads: __, ...what } = one;
    if (one.op !== "linear" || one.stage === "threads") return { ...what, gain: 1.5, threads: 1 };
    const variant = { decode: { run: 1 + i % 3 }, "few rows": { fewRows: 1 + i }, prefill: { tileRows: 1 + i % 9 } };
    return { ...what, gain: 1.5, variant: variant[one.stage] };
  });
  return { ...table, measurements };
}

describe("mllm tune", () => {
  it("keeps each stage at once and goes on after an interruption", () =>
    inFolder(async (file) => {
      const store = new TunedStore(file);
      const { host, program } = open(file, { stderrTerminal: true });
      const { write } = host.stderr;
      host.stderr.write = (text) => {
        write(text);
        if (text.includes("few rows")) host.signal("SIGINT");
      };
      assertEquals(await mllmMain(["tune", "-m", MODEL, "-t", "2", "-c", "512"], host, program), 130);
      const [partial] = store.read();
      assertMatch(
        host.out,
        new RegExp(`comparisons made: ${partial.measurements.length}, known before: 0, [^\\n]+\\n$`),
      );
      assertEquals(host.err.split("\r\x1b[K").at(-1)!.split("\n")[0], `kept in ${file}`);
      assertEquals(new Set(partial.measurements.map(({ stage }) => stage)), new Set(["decode"]));
      const stages = new Set<string>();
      const { known, measured, file: path } = await open(file).engine.tune(MODEL, {
        ...quiet,
        onTune: (what) => void stages.add(what.replace(/^.*: /, "")),
      });
      assertEquals([known, path], [partial.measurements.length, file]);
      assertEquals(stages, new Set(["few rows", "prefill", "threads"]));
      const [whole] = store.read();
      assertEquals(whole.measurements.slice(0, known), partial.measurements);
      assertEquals(whole.measurements.length, known + measured);
      assert(whole.measurements.some(({ op, stage }) => op === "linear" && stage === "prefill"));
      assert(whole.measurements.some(({ op }) => op === "attention"));
      assertEquals((await open(file).engine.tune(MODEL, quiet)).measured, 0);
    }));

  it("ends while the model loads, with nothing kept", () =>
    inFolder(async (file) => {
      const { host, program } = open(file, { stderrTerminal: true });
      const { write } = host.stderr;
      host.stderr.write = (text) => {
        write(text);
        if (text.includes("loading")) host.signal("SIGINT");
      };
      assertEquals(await mllmMain(["tune", "-m", MODEL], host, program), 130);
      assertEquals(host.err.split("\r\x1b[K").at(-1), "mllm: interrupted before anything was measured\n");
      assertEquals(new TunedStore(file).read(), []);
    }));

  it("is heard by later runs, which give the same bits", () =>
    inFolder(async (file) => {
      const store = new TunedStore(file);
      const before = await logits(file);
      await open(file).engine.tune(MODEL, quiet);
      const table = changed(store.read()[0]);
      store.write([table]);
      assertEquals(await logits(file), before);
      const { host, program } = open(file);
      assertEquals(await mllmMain(["doctor", "-t", "2"], host, program), 0);
      assertMatch(host.out, /tuned +\d+ of \d+ kinds of command differ from the default/);
      assertMatch(
        host.out,
        /linear decode \(\w+ \[\d+, \d+\] by q8a\): \[tuned\] GEMV, runs of \d panels(, [^:]*)? on all threads: 1\.50 ×/,
      );
      const other = open(file);
      await mllmMain(["doctor", "-t", "1"], other.host, other.program);
      assertStringIncludes(other.host.out, "is not used: it was made for threads 2, not 1");
      // A table of a build that is gone is no use, and makes room.
      store.write([{ ...table, key: { ...table.key, library: "0".repeat(64) } }]);
      const old = open(file);
      await mllmMain(["doctor", "-t", "2"], old.host, old.program);
      assertStringIncludes(old.host.out, "is not used: it was made with another build of the kernels");
      assertEquals((await old.engine.tune(MODEL, quiet)).known, 0);
      assertEquals(store.read().length, 1);
    }));

  it("has layers of every usual type to try without a model", async () => {
    using backend = await openBackend(x86, { threads: 1 });
    for (const dtype of USUAL_DTYPES) {
      assert(USUAL_SIZES.some((sizes) => suits(dtype, sizes)), dtype);
      using layers = new LayersWorkload(backend, dtype, [256, 512], 400_000);
      using program = layers.capture(5);
      layers.run(program, { tokens: 3, position: 0 });
      const linears = program.commands.filter(({ op }) => op === "linear").map(({ query: { n, k, x } }) => [n, k, x]);
      assertEquals(linears.slice(0, 3), [[256, 256, "q8a"], [512, 256, "q8a"], [256, 512, "q8a"]]);
      assertEquals(new Set(program.output("h", 3)), new Set([0]));
    }
    assertEquals(suits("q4_k", [896, 4864]), false);
  });

  const processors = navigator.hardwareConcurrency;
  const tooMany = processors > 200; // they give 255 threads, the most there can be, nearly all of their time
  it("takes no machine for quiet that has fewer processors than threads", { skip: tooMany }, async () => {
    using backend = await openBackend(x86, { threads: Math.min(255, 4 * processors) });
    const watch = new ProcessorWatch(backend);
    assertEquals(watch.isQuiet(), false);
    watch[Symbol.dispose]();
    assertEquals(backend.liveAllocations, 0);
  });

  it("warns of a damaged file, works without it, and replaces it when forced", () =>
    inFolder(async (file) => {
      const before = await logits(file);
      await Deno.writeTextFile(file, '{"format":2,');
      const { host, engine, program } = open(file);
      using model = await engine.load(MODEL, run);
      assertMatch(host.err, /^mllm: the tuned kernels are not used: [^\n]+ `mllm tune --force` writes it anew\n$/);
      assertEquals(
        new Uint32Array((await model.evaluate(IDS)).logits.buffer),
        before.slice(0, -model.tokenizer.vocabSize),
      );
      await mllmMain(["doctor"], host, program);
      assertStringIncludes(host.out, "tuned     not used: this is no table of tuned kernels: it is no JSON");
      const refused = open(file);
      assertEquals(await mllmMain(["tune", "-m", MODEL, "-t", "2"], refused.host, refused.program), 1);
      const forced = open(file);
      const code = await mllmMain(["tune", "-m", MODEL, "-t", "2", "--force"], forced.host, forced.program);
      assertEquals(code, 0, forced.host.err);
      assertMatch(forced.host.out, /comparisons made: \d+, known before: 0, choices other than the default: \d+\n$/);
      assertEquals(new TunedStore(file).read().length, 1);
    }));
});
