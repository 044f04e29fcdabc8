import { describe, it } from "@std/testing/bdd";
import { assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { ExitSignal, FakeHost } from "../../testing/fake_host.ts";
import { fakeProgram } from "../../testing/fake_program.ts";
import { fileURLToPath } from "node:url";
import { openProgram } from "../open_engine.ts";
import { mean, parseCounts, standardDeviation } from "./bench.ts";
import { mllmMain } from "./main.ts";

async function mllm(args: string[], input = "") {
  const host = new FakeHost({ input });
  const program = fakeProgram();
  const code = await mllmMain(args, host, program);
  return { code, out: host.out, err: host.err, engine: program.engine };
}

describe("mllm", () => {
  it("explains itself", async () => {
    const overview = await mllm(["--help"]);
    assertEquals(overview.code, 0);
    for (const name of ["generate", "logits", "tokenize", "info", "doctor", "tune", "bench", "perplexity", "chat"]) {
      assertStringIncludes(overview.out, `  ${name}`);
      for (const args of [[name, "--help"], ["help", name]]) {
        const { code, out, err } = await mllm(args);
        assertEquals([code, err], [0, ""], name);
        assertStringIncludes(out, "Options:");
        assertStringIncludes(out, "--help");
      }
    }
    assertEquals((await mllm([])).code, 2);
    assertMatch((await mllm(["--version"])).out, /^mllm \d+\.\d+\.\d+\n$/);
  });

  it("wrong usage is code 2, one line on stderr, with a suggestion", async () => {
    const cases: [string[], string][] = [
      [["genrate"], "Did you mean generate?"],
      [["-m", "x"], "-m needs a command before it"],
      [["--versio"], "Did you mean --version?"],
      [["generate", "--promt", "x"], "Did you mean --prompt?"],
      [["generate", "-N", "1"], "Did you mean -n?"],
      [["generate", "-p", "x"], "--model is missing"],
      [["generate", "-m", "fake"], "there is no prompt"],
      [["generate", "-m", "fake", "-p", "x", "--tokens", "1"], "exclude each other"],
      [["generate", "-m", "fake", "--tokens", "1,x"], '--tokens needs a whole number from 0 to 2147483647, not "x"'],
      [["generate", "-m", "fake", "--tokens", "1,,2"], "--tokens needs a whole number"],
      [["generate", "-m", "fake", "-p", "x", "-n", "1.5"], "--max-tokens needs a whole number"],
      [["generate", "-m", "fake", "-p", "x", "--top-p", "2"], "top_p needs a number from 0 to 1"],
      [["generate", "-m", "fake", "-p", "x", "--backend", "x86:"], "--backend can't be"],
      [["logits", "-m", "fake", "--tokens", "1"], "--output is missing"],
      [["tokenize", "-m", "fake", "a", "b"], 'no place for "b"'],
      [["bench", "-m", "fake", "-o", "jsn"], "Did you mean json?"],
      [["bench", "-m", "fake", "-p", "0", "-n", "0"], "nothing to measure"],
      [["bench", "-m", "fake", "-p", "4-8+0"], "never ends"],
      [["bench", "-m", "fake", "-p", "512,5-3"], "--n-prompt: the range 5-3 runs backwards. Write 3-5"],
      [["info", "-m", "fake", "-m", "b"], "--model is given more than once"],
      [["tune", "-m", "fake", "-m", "b"], "--model is given more than once"],
      [["chat", "-m", "fake", "-m", "b"], "--model is given more than once"],
      [["chat", "-m", "fake", "-s", "a", "-s", "b"], "--system is given more than once"],
      [["perplexity", "-m", "fake", "-f", "a", "-f", "b"], "--file is given more than once"],
      [["logits", "-m", "fake", "-p", "x", "-o", "a", "-o", "b"], "--output is given more than once"],
      [["logits", "-m", "fake", "-p", "x", "-o", "-"], "logits go to a file, not to stdout"],
      [["bench", "-m", "fake", "--profile", "--eager"], "--profile and --eager exclude each other"],
      [["bench", "-m", "fake", "--profile", "--no-warmup"], "--profile and --no-warmup exclude each other"],
      [["tune", "-m", "fake", "--eager"], "not --eager"],
      [["generate", "-m", "fake", "-p", "x", "--greedy", "--temp", "1"], "--greedy and --temp exclude each other"],
      [["generate", "-m", "fake", "-p", "x", "--greedy", "--temperature", "1"], "--greedy and --temp exclude"],
      [["generate", "-m", "fake", "-p", "x", "--greedy", "--top-k", "5"], "--greedy and --top-k exclude each other"],
      [["generate", "-m", "fake", "-p", "x", "--greedy", "--top-p", "0.5"], "--greedy and --top-p exclude"],
      [["chat", "-m", "fake", "-p", "x", "--greedy", "--min-p", "0.1"], "--greedy and --min-p exclude each other"],
      [["chat", "-m", "fake", "-p", "x", "-p", "y"], "--prompt is given more than once"],
      [["logits", "-m", "fake", "-o", "f", "--tokens", "1", "--tokens", "2"], "--tokens is given more than once"],
      [["generate", "-m", "fake", "-p", "x", "--repeat-last-n", "0", "--repeat-penalty", "1.1"], "exclude each other"],
      [["perplexity", "-m", "fake"], "--file is missing"],
      [["perplexity", "-m", "fake", "-f", "-"], "the text has 0 tokens and a chunk 512"],
      [["perplexity", "-m", "fake", "-f", "-", "-c", "2"], "nothing to score"],
      [["perplexity", "-m", "fake", "-f", "-", "--chunks", "0"], "--chunks needs a whole number from 1"],
      [["doctor", "--thread", "2"], "Did you mean --threads?"],
      [["generate", "-m", "fake", "-p", "-"], "--prompt - found nothing on stdin"],
      [["tokenize", "-m", "fake", "x", "--backend", "x86:"], "--backend can't be"],
      [["bench", "-m", "fake", "-p", "40000"], "a test takes 40000 tokens and the context holds 32768"],
      [["tune", "--forse"], "Did you mean --force?"],
      [["tune", "-m", ""], "--model is empty"],
      [["tune", "fake"], 'there is no place for "fake"'],
      [["tune", "--threads", "0"], "--threads needs a whole number from 1"],
      [["bench", "-m", "fake", "-p", "10", "-c", "9"], "Take a larger --context, up to 32768"],
    ];
    for (const [args, text] of cases) {
      const { code, out, err } = await mllm(args);
      assertEquals([code, out], [2, ""], `${args.join(" ")}: ${err}`);
      assertStringIncludes(err, text);
      assertMatch(err, /^mllm: [^\n]+\n$/);
    }
  });

  it("so is what a model refuses, in the words of the command line", async () => {
    const model = fileURLToPath(new URL("../../../models/testdata/qwen2-legacyq.gguf", import.meta.url));
    const kv = "takes heads of a multiple of 32 up to 1024 elements, not 16. Take f16 or f32";
    const cases: [string[], string][] = [
      [["info", "-c", "99999"], "--context must be a whole number from 1 to "],
      [["tune", "-c", "99999"], "--context must be a whole number from 1 to "],
      [["chat", "-p", "x", "-c", "99999"], "--context must be a whole number from 1 to "],
      [["bench", "-p", "1", "--kv-type", "q4_0"], `--kv-type: q4_0 ${kv}`],
      [["generate", "--tokens", "1", "--kv-type-v", "q8_0"], `--kv-type-v: q8_0 ${kv}`],
      [["generate", "--tokens", "1,99999"], "token id 99999 is not in the vocabulary"],
      [["generate", "--tokens", "1,2,3", "-c", "2"], "do not fit into the context of 2"],
      [["logits", "--tokens", "1,2,3", "-c", "2", "-o", "f"], "do not fit into the context of 2"],
    ];
    for (const [[command, ...args], text] of cases) {
      const host = new FakeHost({ env: { MLLM_TUNED: "/nowhere/tuned.json" } });
      const code = await mllmMain([command, "-m", model, ...args], host, openProgram(host, "mllm"));
      assertEquals([code, host.out], [2, ""], `${command} ${args.join(" ")}: ${host.err}`);
      assertStringIncludes(host.err, text);
    }
  });

  it("a failure is code 1, one line on stderr", async () => {
    for (const command of [["generate", "-p", "x"], ["info"], ["tokenize", "x"], ["bench"], ["tune"]]) {
      const { code, out, err } = await mllm([...command, "-m", "nowhere"]);
      assertEquals([code, out], [1, ""]);
      assertEquals(err, "mllm: there is no model (nowhere)\n");
    }
  });

  it("generate streams text", async () => {
    const { code, out, err, engine } = await mllm([
      "generate",
      "-m",
      "fake",
      "-p",
      "abc",
      "-n24",
      "--greedy",
      "--ignore-eos",
    ]);
    assertEquals([code, out, err], [0, "ABC\n", ""]);
    const { maxTokens, ignoreEos, sampling } = engine.model.calls[0];
    assertEquals({ maxTokens, ignoreEos, sampling }, { maxTokens: 24, ignoreEos: true, sampling: { temperature: 0 } });
  });

  it("generate takes its prompt from stdin for -", async () => {
    assertEquals((await mllm(["generate", "-m", "fake", "-p", "-"], "a\nb\n")).out, "A\nB\n");
  });

  it("every command with a model takes the run options", async () => {
    const options = ["--backend", "x86:portable", "--threads", "2", "--activations", "f32", "--eager", "--chunk", "8"];
    const commands = [["generate", "-p", "x"], ["logits", "-p", "x", "-o", "f"], ["tokenize", "x"], ["info"], [
      "bench",
    ]];
    for (const command of commands) {
      const { code, err } = await mllm([...command, "-m", "fake", ...options]);
      assertEquals([code, err], [0, ""], command[0]);
    }
    assertStringIncludes((await mllm(["doctor", ...options])).out, "[portable] avx2");
  });

  it("logits looks at where it writes before it works", async () => {
    for (
      const [file, text] of [["/nowhere/at/all/f", "no such folder (/nowhere/at/all/)"], [".", "this is a folder (.)"]]
    ) {
      const { code, err, engine } = await mllm(["logits", "-m", "fake", "-p", "x", "-o", file]);
      assertEquals([code, engine.loads.length], [file === "." ? 2 : 1, 0]);
      assertStringIncludes(err, text);
    }
  });

  it("generate --json gives the promised form", async () => {
    const { out } = await mllm(["generate", "-m", "fake", "--tokens", "97,98", "-n", "24", "--json"]);
    const json = JSON.parse(out);
    assertEquals(json, {
      tokens: [65, 66, 0],
      text: "AB",
      stop: "eos",
      timings: { load_ms: 12, prompt_n: 2, prompt_ms: 10, predicted_n: 3, predicted_ms: 15 },
    });
    assertEquals(out.endsWith("}\n") && out.trim().includes("\n") === false, true);
    assertEquals(
      JSON.parse((await mllm(["generate", "-m", "fake", "-p", "abc", "-n", "2", "--json"])).out).stop,
      "length",
    );
  });

  it("logits writes logits and hidden states", async () => {
    const { code, out, engine } = await mllm([
      "logits",
      "-m",
      "fake",
      "--tokens",
      "1,2,3",
      "--hidden-states",
      "-o",
      "f",
    ]);
    assertEquals([code, out], [0, ""]);
    const [{ path, tensors }] = engine.written;
    assertEquals(path, "f");
    assertEquals(tensors.map(({ name, shape }) => ({ name, shape })), [
      { name: "logits", shape: [3, 5] },
      { name: "hidden.0", shape: [3, 3] },
      { name: "hidden.1", shape: [3, 3] },
    ]);
  });

  it("tokenize takes a text or stdin as it is", async () => {
    assertEquals((await mllm(["tokenize", "-m", "fake", "ab"])).out, "97 98\n");
    assertEquals((await mllm(["tokenize", "-m", "fake", "-"], "a\n")).out, "97 10\n");
    assertEquals((await mllm(["tokenize", "-m", "fake", "--json"], "a\n")).out, '{"tokens":[97,10]}\n');
    assertEquals((await mllm(["tokenize", "-m", "fake", "--json", ""])).out, '{"tokens":[]}\n');
    assertEquals((await mllm(["tokenize", "-m", "fake", "--", "-x"])).out, "45 120\n");
  });

  it("tune prints what it found, on stdout, and where it is, on stderr", async () => {
    const { code, out, err, engine } = await mllm(["tune", "-m", "fake", "-t", "3"]);
    assertEquals([code, err], [0, "kept in tuned.json\n"]);
    assertMatch(out, /^linear decode .*\ncomparisons made: 6, known before: 4, choices other than the default: 1\n$/);
    const busy = await mllm(["tune", "-m", "fake", "-t", "99"]);
    assertEquals(busy.code, 0);
    const some = /^kept in tuned\.json\nmllm: the threads did not get their processors: [^\n]+\. Some [^\n]+\n$/;
    assertMatch(busy.err, some);
    const json = await mllm(["tune", "--force", "--json"]);
    assertEquals([JSON.parse(json.out).known, json.err], [0, ""]);
    const none = await mllm(["tune", "-m", "fake", "-t", "100"]);
    assertEquals([none.code, none.out], [
      1,
      "comparisons made: 0, known before: 0, choices other than the default: 0\n",
    ]);
    assertMatch(none.err, /^nothing was kept\nmllm: the threads did not get their processors: [^\n]+\. All [^\n]+\n$/);
    const noneJson = await mllm(["tune", "-t", "100", "--json"]);
    assertEquals([noneJson.code, JSON.parse(noneJson.out).measured], [1, 0]);
    assertMatch(noneJson.err, /^mllm: the threads did not get [^\n]+\n$/);
    const asked = [...engine.tunings, ...json.engine.tunings];
    assertEquals(asked, [{ path: "fake", force: false, threads: 3 }, {
      path: undefined,
      force: true,
      threads: undefined,
    }]);
  });

  it("tune says after Ctrl+C what is kept, and ends with 130", async () => {
    const host = new FakeHost({ stderrTerminal: true });
    const ended = mllmMain(["tune", "-m", "fake", "-t", "98"], host, fakeProgram());
    await host.shows("fake: decode");
    host.signal("SIGINT");
    assertEquals(await ended, 130);
    assertMatch(host.out, /^linear decode .*\ncomparisons made: 6, known before: 4, [^\n]+\n$/);
    const after = host.err.split("\r\x1b[K").at(-1);
    assertEquals(
      after,
      "kept in tuned.json\nmllm: interrupted: the next `mllm tune` goes on with the stage that ran\n",
    );
    assertEquals(host.listenerCount, 0);
  });

  it("info and doctor tell what there is", async () => {
    const info = await mllm(["info", "-m", "fake", "--tensors"]);
    for (
      const text of [
        "qwen3 2L Q8_0",
        "1,500,000",
        "hidden_size",
        "initializer_range",
        "KV cache    1.0 MiB (keys q8_0, values q4_0)",
        "a f32 [2, 3]",
      ]
    ) {
      assertStringIncludes(info.out, text);
    }
    const json = JSON.parse((await mllm(["info", "-m", "fake", "--json"])).out);
    assertEquals([json.types[0].dtype, json.file_bytes, json.context_limit], ["q8_0", 3 << 20, 32768]);
    assertEquals(json.memory.total, json.memory.weights + json.memory.kv + json.memory.arena);
    const doctor = await mllm(["doctor"]);
    for (
      const text of [
        "portable [avx2]",
        "not amx: this CPU lacks AMX",
        "Fake CPU (abacus), 2 cores",
        "tuned     3 rows",
        "because",
        "not available: no library here",
      ]
    ) {
      assertStringIncludes(doctor.out, text);
    }
    const { backends } = JSON.parse((await mllm(["doctor", "--json"])).out);
    assertEquals([backends.length, backends[0].memory_bytes], [2, 8 * 2 ** 30]);
  });

  it("bench prints llama-bench's table and rows", async () => {
    const md = await mllm(["bench", "-m", "fake", "-p", "8,16", "-n", "4", "-r", "2"]);
    assertEquals([md.code, md.engine.loads[0].options.context, md.engine.summaries], [0, 16, ["fake"]]);
    const lines = md.out.split("\n");
    assertMatch(lines[0], /^\| model +\| +size \| +params \| backend +\| threads \| +test \| +t\/s \|$/);
    assertMatch(lines[1], /^\| -+ \| -+: \| -+: \| -+ \| -+: \| -+: \| -+: \|$/);
    assertMatch(
      lines[2],
      /^\| qwen3 2L Q8_0 +\| +3\.00 MiB \| +1\.50 M \| x86:avx2 +\| +2 \| +pp8 \| +[\d.]+ ± [\d.]+ \|$/,
    );
    assertStringIncludes(lines[4], " tg4 ");
    const json = JSON.parse((await mllm(["bench", "-m", "fake", "-p", "8", "-n", "0", "-r", "3", "-o", "json"])).out);
    assertEquals(json.length, 1);
    const [row] = json;
    assertEquals([row.n_prompt, row.n_gen, row.n_depth, row.samples_ns.length, row.samples_ts.length], [8, 0, 0, 3, 3]);
    assertEquals([row.n_threads, row.type_k, row.type_v, row.n_batch], [2, "f32", "f32", 512]);
    assertAlmostEquals(row.avg_ts, mean(row.samples_ts), 1e-6);
    assertMatch(row.test_time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  });

  it("Ctrl+C takes bench's bar away and ends it", async () => {
    const host = new FakeHost({ stderrTerminal: true });
    const program = fakeProgram();
    program.engine.model.forward = () => new Promise(() => {});
    void mllmMain(["bench", "-m", "fake", "-p", "8", "-n", "0"], host, program);
    await host.shows("pp8 ");
    assertEquals(assertThrows(() => host.signal("SIGINT"), ExitSignal).code, 130);
    assertEquals(host.screen.text().trim(), "");
  });

  it("perplexity prints running values and the estimate, as llama-perplexity does", async () => {
    // The fake's scores are 9 0 1 2, of which 1 and 2 count, and 4 5 6 7, of which 6 and 7.
    const run = (args: string[], input = "0123456789..\n") =>
      mllm(["perplexity", "-m", "fake", "-c", "5", ...args], input);
    const { code, out, err, engine } = await run(["-f", "-"]);
    assertEquals([code, err], [0, ""]);
    assertEquals(out, "[1]4.4817,[2]54.5982,\nFinal estimate: PPL = 54.5982 +/- 80.36630\n");
    assertEquals([engine.loads[0].options.context, engine.summaries], [5, ["fake"]]);
    assertMatch(
      (await run(["-f", "-", "--chunks", "1"])).out,
      /^\[1\]4\.4817,\nFinal estimate: PPL = 4\.4817 \+\/- [\d.]+\n$/,
    );
    const json = JSON.parse((await run(["-f", "-", "-o", "json"])).out);
    assertEquals([json.n_ctx, json.n_chunks, json.n_scored, json.running.length, json.type_k], [5, 2, 4, 2, "f32"]);
    assertAlmostEquals(json.ppl, Math.exp(4), 1e-5);
    const missing = await run(["-f", "nowhere.txt"]);
    assertEquals([missing.code, missing.err], [1, "mllm: no such file (nowhere.txt). Check the path\n"]);
    const device = await run(["-f", "/dev/null"]);
    assertEquals([device.code, device.err], [1, "mllm: not a regular file (/dev/null). Give the path of a file\n"]);
  });

  it("chat is the chat", async () => {
    assertEquals((await mllm(["chat", "-m", "fake"], "hi\n")).out, "You said: hi\n");
  });
});

describe("bench arithmetic", () => {
  it("lists and ranges", () => {
    assertEquals(parseCounts("-p", "1,5, 7"), [1, 5, 7]);
    assertEquals(parseCounts("-p", "1-7+3,64-256*2"), [1, 4, 7, 64, 128, 256]);
    assertEquals(parseCounts("-p", "2-4"), [2, 3, 4]);
  });
  it("deviation", () => {
    assertEquals(standardDeviation([5]), 0);
    assertAlmostEquals(standardDeviation([1, 2, 3, 4]), 1.2909944487358056, 1e-12);
  });
});
