/** The arithmetic, the tables and the charts of `bench:peers`; nothing is installed or measured here. */
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { dequantize, readWeight } from "@mllm/core";
import { createTokenizer, inspectModel } from "@mllm/models";
import { writeRandomModel } from "../random_model/model.ts";
import { shapes } from "../random_model/shapes.ts";
import { repositoryRoot } from "../workspace.ts";
import { rooflineChart, speedChart } from "./chart.ts";
import type { PeerRun } from "./engines.ts";
import { writeHfFolder } from "./hf_folder.ts";
import { describeMachine, type Machine, meanPeaks } from "./machine.ts";
import { quantisationOf } from "./mnn_model.ts";
import { parseList } from "./peers.ts";
import { contextOf, promptIds } from "./protocol.ts";
import { loadTable, replaceResults, reportText, rooflineTable, speedTable } from "./report.ts";
import { engineResult, mergeResults, type ModelResult, type Results, samplesOf } from "./results.ts";
import { rooflineOf } from "./roofline.ts";

const peaks = { level: "avx2", threads: 2, int8_gops: 400, f32_gflops: 100, read_gb_per_s: 20 };
const machine: Machine = {
  cpu: "A <fast> & small CPU",
  levels: ["portable", "avx2", "avx512vnni"],
  features: ["avx2"],
  cores: 2,
  memory_bytes: 8 * 2 ** 30,
  system: "linux 6",
  governor: null,
  versions: { mllm: "1234abc", node: "v20.1.0" },
};

const op = (name: string, kind: string, time_ns: number, weight_bytes: number, operations: number) => ({
  op: name,
  kind,
  calls: 4,
  time_ns,
  share: time_ns / 20_000,
  weight_bytes,
  cache_bytes: 0,
  activation_bytes: 1000,
  operations,
  gb_per_s: (weight_bytes + 1000) / time_ns,
  gops: operations / time_ns,
});

/** Four tokens in 20 µs: 10 µs of integer products that memory holds back, 5 µs of float ones, 5 µs of nothing. */
const profile = {
  wall_ns: 20_000,
  outside_ns: 5000,
  programs: [],
  ops: [
    op("linear", "q4_0 [64, 64]", 10_000, 160_000, 400_000),
    op("attention", "f16 [tokens, 4, 16]", 5000, 0, 250_000),
  ],
};

const run = (pp: number, tg: number, loadToFirstTokenMs: number, peakBytes: number): PeerRun => ({
  version: "1",
  detail: "",
  loadToFirstTokenMs,
  loadedBytes: peakBytes / 2,
  peakBytes,
  neededBytes: pp > 80 ? 64 << 20 : undefined,
  speeds: { pp512: pp, tg128: tg },
});

const model: ModelResult = {
  model: "some.gguf",
  type: "qwen3 1M Q4_0",
  size_bytes: 3 << 20,
  parameters: 1_500_000,
  repetitions: 3,
  peaks,
  engines: [
    engineResult("mllm", [run(90, 40, 300, 200 << 20), run(110, 30, 500, 200 << 20), run(100, 20, 400, 210 << 20)]),
    engineResult("other", [run(50, 15, 800, 300 << 20), run(50, 15, 800, 300 << 20), run(50, 15, 800, 300 << 20)]),
  ],
  roofline: [rooflineOf("pp4", profile, 4, peaks), rooflineOf("tg4", profile, 4, peaks)],
};
const results: Results = { date: "2026-01-02T03:04:05Z", machine, models: [model] };

/** Checks that tags nest and are closed, attributes are quoted and text is escaped; returns the names of all elements. */
function checkXml(xml: string): string[] {
  const [open, names]: [string[], string[]] = [[], []];
  const rest = xml.replace(
    /<(\/?)([a-z]+)((?:\s+[a-zA-Z][\w:-]*="[^"<]*")*)\s*(\/?)>/g,
    (_, end, name, _attributes, self) => {
      if (end !== "") assertEquals(open.pop(), name);
      else {
        names.push(name);
        if (self === "") open.push(name);
      }
      return "";
    },
  );
  assertEquals(open, []);
  assert(!/[<>]/.test(rest) && !/&(?!(amp|lt|gt|quot);)/.test(rest), "text is not escaped");
  return names;
}

describe("bench:peers arithmetic", () => {
  it("medians and the rest", () => {
    assertEquals(samplesOf([3, 1, 2]), { samples: [3, 1, 2], median: 2, min: 1, max: 3 });
    assertEquals(samplesOf([4, 1, 2, 3]).median, 2.5);
    assertThrows(() => samplesOf([]), RangeError);
    assertEquals(model.engines[0].speeds.pp512.median, 100);
    assertEquals(model.engines[0].load_to_first_token_ms.samples, [300, 500, 400]);
  });

  it("the machine is described in full", async () => {
    const { cpu, cores, memory_bytes, levels, versions } = await describeMachine();
    assert(cpu !== "" && cores >= 1 && levels.length > 0 && versions.zig !== null, `${cpu} ${cores} ${levels}`);
    assert(memory_bytes > 64 << 20, `${memory_bytes}`);
  });

  it("an engine is held against the mean of what the machine gave before and after", () => {
    const later = { ...peaks, int8_gops: 600, f32_gflops: 140, read_gb_per_s: 30, tiles_bf16_gops: 8000 };
    const mean = { int8_gops: 500, f32_gflops: 120, read_gb_per_s: 25, tiles_bf16_gops: 4000, tiles_int8_gops: 0 };
    assertEquals(meanPeaks(peaks, later), { ...peaks, ...mean });
  });

  it("an op's limit is the larger of its memory and its operations", () => {
    const [{ us_per_token, of_bandwidth, of_int8_peak, of_limit, ops }] = model.roofline;
    const [linear, attention] = ops;
    assertEquals([linear.peak, attention.peak], ["int8", "f32"]);
    assertEquals(linear.of_limit, 160_000 / 20 / 10_000); // 1 µs of integers fits into 8 µs of reading
    assertEquals(attention.of_limit, 0.5);
    assertEquals(us_per_token, 5);
    assertEquals(of_bandwidth, 160_000 / 20_000 / 20);
    assertEquals(of_int8_peak, 400_000 / 20_000 / 400);
    assertEquals(of_limit, (8000 + 2500) / 20_000);
    const attends = (test: string, kind = "q4_0 [64, 64]") => {
      const [linear, attention] = profile.ops;
      return rooflineOf(test, { ...profile, ops: [{ ...linear, kind }, attention] }, 4, peaks).ops[1].peak;
    };
    assertEquals([attends("pp32"), attends("pp31"), attends("tg128")], ["int8", "f32", "f32"]);
    assertEquals(attends("pp512", "f16 [64, 64]"), "f32");
    const amx = { ...peaks, tiles_bf16_gops: 4000, tiles_int8_gops: 8000 };
    const units = (test: string) => rooflineOf(test, profile, 4, amx).ops.map(({ peak }) => peak);
    assertEquals(units("pp64"), ["tiles_bf16", "tiles_int8"]);
    assertEquals([units("pp63"), units("tg4")], [["int8", "tiles_int8"], ["int8", "f32"]]);
    assertEquals(rooflineOf("pp64", profile, 4, amx).of_int8_peak, (400_000 / 4000 + 250_000 / 8000) / 20_000);
    assertEquals(linear.intensity, 400_000 / 161_000);
  });

  it("new results replace those of the same model and level only", () => {
    const other = { ...model, model: "other.gguf" };
    const avx512 = { ...model, peaks: { ...peaks, level: "avx512vnni" } };
    const older = { ...results, models: [{ ...model, repetitions: 1 }, other, avx512] };
    assertEquals(mergeResults(older, results).models, [other, avx512, model]);
    assertEquals(mergeResults(undefined, results), results);
    assertEquals(mergeResults({ ...older, machine: { ...machine, cpu: "another" } }, results), results);
  });

  it("requests: lists, contexts, ids inside small vocabularies", () => {
    assertEquals(parseList("-p", "512,4096"), [512, 4096]);
    for (const bad of ["", "0", "1,", "1.5", "-3", "x"]) assertThrows(() => parseList("-p", bad), RangeError, "-p");
    assertEquals(contextOf({ prompts: [512], generates: [128] }), 576);
    assert(promptIds(5000).every((id) => id >= 0 && id < 32_000));
  });
});

describe("bench:peers reports", () => {
  it("tables in llama-bench's form, with ratios", () => {
    const lines = speedTable([model], machine).split("\n");
    assertMatch(lines[0], /^\| model +\| +size \| params \| backend \| threads \| +test \| +t\/s \| mllm ÷ it \|$/);
    assertMatch(lines[2], /^\| qwen3 1M Q4_0 \(avx2\) .*\| mllm +\| +2 \| pp512 \| 100\.00 ± 10\.00 \| +\|$/);
    assertMatch(lines[3], /\| other +\| +2 \| pp512 \| +50\.00 ± 0\.00 \| +2\.00 \|$/);
    assertEquals(lines.length, 6);
    const load = loadTable([model], machine).split("\n");
    assertMatch(load[2], /\| mllm +\| +400 ± 100 \| +\| +64 \| +100 \| +200 \| +\|$/);
    assertMatch(load[3], /\| other +\| +800 ± 0 \| +2\.00 \| +\| +150 \| +300 \| +1\.50 \|$/);
    assertMatch(
      rooflineTable(model.roofline[0]).split("\n")[2],
      /\| linear +\| q4_0 \[64, 64\] +\| +50 % \| 2\.5 \|.* 80 % \|$/,
    );
  });

  it("the document takes them between its marks", () => {
    const document = Deno.readTextFileSync(`${repositoryRoot()}/docs/benchmarks.md`);
    const once = replaceResults(document, reportText(results));
    assertStringIncludes(once, "A <fast> & small CPU");
    assertEquals(replaceResults(once, reportText(results)), once);
    assertThrows(() => replaceResults("no marks", "x"), Error, "no place");
  });

  it("charts are well-formed and complete", () => {
    const speeds = speedChart([model, model], machine);
    const names = checkXml(speeds);
    assertEquals(names.filter((name) => name === "rect").length, 1 + 2 * 2 * 2);
    assertStringIncludes(speeds, "A &lt;fast&gt; &amp; small CPU");
    assertStringIncludes(speeds, "(2.00×)");
    const roofline = rooflineChart(model, machine);
    assertEquals(checkXml(roofline).filter((name) => name === "circle").length, 2 * 2 + 2);
    for (const text of ["memory 20.0 GB/s", "int8 400 GOPS", "attention f16 [tokens, 4, 16]", "tg4"]) {
      assertStringIncludes(roofline, text);
    }
    assertThrows(() => checkXml("<a><b></a>"));
    assert(!/NaN|undefined|Infinity/.test(speeds + roofline));
  });
});

describe("models for other engines", () => {
  it("a Hugging Face folder of a GGUF file holds the same values and the same tokenizer", async () => {
    const folder = Deno.makeTempDirSync();
    try {
      const gguf = `${folder}/tiny.gguf`;
      await writeRandomModel(gguf, { shape: shapes.tiny, type: "q4_0" });
      await writeHfFolder(gguf, `${folder}/hf`);
      const [from, to] = [(await inspectModel(gguf)).checkpoint, (await inspectModel(`${folder}/hf`)).checkpoint];
      assertEquals([...to.weights.keys()].sort(), [...from.weights.keys()].sort());
      for (const [name, info] of from.weights) {
        const count = info.shape.reduce((product, dim) => product * dim, 1);
        const other = to.weights.get(name)!;
        assertEquals([other.dtype, other.shape], ["f32", info.shape]);
        assertEquals(dequantize("f32", readWeight(other), count), dequantize(info.dtype, readWeight(info), count));
      }
      const text = "hello there 123 \n é漢🎉";
      assertEquals(createTokenizer(to.tokenizer).encode(text), createTokenizer(from.tokenizer).encode(text));
      assertEquals(quantisationOf(from.weights), [
        "--quant_bit",
        "4",
        "--quant_block",
        "32",
        "--lm_quant_bit",
        "4",
        "--sym",
      ]);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });
});
