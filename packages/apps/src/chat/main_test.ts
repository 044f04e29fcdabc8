import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { ExitSignal, FakeHost, type FakeHostOptions } from "../../testing/fake_host.ts";
import { FakeEngine, type FakeOptions } from "../../testing/fake_model.ts";
import { fakeProgram } from "../../testing/fake_program.ts";
import { looksLikeCommand } from "./commands.ts";
import { chatMain, loadWithBar } from "./main.ts";

async function run(args: string[], options: FakeHostOptions = {}, model: FakeOptions = {}) {
  const host = new FakeHost({ input: "", ...options });
  const program = fakeProgram(model);
  const code = await chatMain(args, host, program);
  return { code, out: host.out, err: host.err, program };
}

describe("chat in a pipe", () => {
  it("answers each line, replies alone on stdout", async () => {
    const { code, out, err, program } = await run(["--model", "fake"], { input: "hello\n\nwhat?\r\ncount?" });
    assertEquals([code, out, err], [0, "You said: hello\nYou said: what?\n5 messages\n", ""]);
    assertEquals(program.engine.model.isDisposed, true);
  });

  it("every line is a message, whatever it begins with", async () => {
    const { code, out, err } = await run(["-m", "fake"], { input: "/bye\n//help\n/etc/passwd is what?\n" });
    assertEquals([code, err], [0, ""]);
    assertEquals(out, "You said: /bye\nYou said: //help\nYou said: /etc/passwd is what?\n");
  });

  it("only one line of a name and an argument is a command", () => {
    for (const text of ["/help", "/set temperature 1", "/halp", "/save! x", "/? shortcuts", "/", " / "]) {
      assert(looksLikeCommand(text));
    }
    for (const text of ["/** doc", "/etc/passwd", "// note", "/help\nme", "say /help", "/ me", "//", "a /"]) {
      assert(!looksLikeCommand(text));
    }
  });

  it("one shot with --prompt and --system", async () => {
    assertEquals((await run(["-p", "hi"])).out, "You said: hi\n");
    assertEquals((await run(["--prompt=system?", "--system", "S"], { input: "ignored" })).out, "S\n");
  });

  it("Ctrl+C while a model loads takes the bar away and ends the program", () => {
    const host = new FakeHost({ stderrTerminal: true });
    const engine = new FakeEngine();
    engine.load = (_, { onProgress }) => {
      onProgress?.("loading", 1, 2);
      return new Promise(() => {});
    };
    void loadWithBar(host, engine, "fake", {});
    assertStringIncludes(host.screen.text(), "50%");
    assertEquals(assertThrows(() => host.signal("SIGINT"), ExitSignal).code, 130);
    assertEquals(host.screen.text().trim(), "");
  });

  it("refuses a stop text of nothing", async () => {
    const { code, err } = await run(["-p", "hi", "--stop", ""]);
    assertEquals([code, err], [2, "mllm: --stop is empty. Give the text that ends a reply, or leave it out\n"]);
  });

  it("takes one message from stdin for -", async () => {
    assertEquals((await run(["-p", "-"], { input: "two\nlines\n" })).out, "You said: two\nlines\n");
    assertEquals((await run(["-p", "-"])).code, 2);
  });

  it("says on stderr that the demonstration model answers", async () => {
    const { out, err } = await run([], { input: "hi\n" });
    assertEquals(out, "You said: hi\n");
    assertEquals(err, "mllm: the small demonstration model answers; for a real one: chat --model PATH\n");
  });

  it("passes options on", async () => {
    const args = [
      "-m",
      "fake",
      "-p",
      "x",
      "--temp",
      "0.5",
      "--top-k=3",
      "--seed",
      "7",
      "-n",
      "5",
      "--stop",
      "A",
      "--stop",
      "B",
    ];
    const more = [
      "--backend",
      "x86:avx2",
      "-t",
      "2",
      "--activations",
      "f32",
      "--context",
      "100",
      "--chunk",
      "16",
      "--eager",
      "--modeling",
      "plain",
    ];
    const { out, program } = await run([...args, ...more]);
    assertEquals(out, "You s\n");
    const { sampling, maxTokens, stopStrings } = program.engine.model.calls[0];
    assertEquals({ sampling, maxTokens, stopStrings }, {
      sampling: { temperature: 0.5, topK: 3, seed: 7 },
      maxTokens: 5,
      stopStrings: ["A", "B"],
    });
    const { onProgress: _, ...options } = program.engine.loads[0].options;
    assertEquals(options, {
      backend: "x86:avx2",
      threads: 2,
      activations: "f32",
      context: 100,
      chunk: 16,
      kvDtype: undefined,
      keyDtype: undefined,
      valueDtype: undefined,
      eager: true,
      modeling: "plain",
    });
  });

  it("fails with one line and code 1", async () => {
    const cases: [string[], string, RegExp][] = [
      [["-m", "nowhere"], "hi\n", /^mllm: there is no model \(nowhere\)\n$/],
      [["-m", "broken"], "hi\n", /^mllm: the header is cut off \(broken at byte 8\)\n$/],
      [["-m", "huge"], "hi\n", /^mllm: this model needs 9000\.0 MiB and 8000\.0 MiB are free\n$/],
      [["-m", "fake"], "fail\n", /^mllm: the fake backend failed\. Try again\n$/],
      [["-m", "fake"], "crash\n", /^mllm: something went wrong inside: TypeError: a bug\. MLLM_DEBUG=1 shows where\n$/],
    ];
    for (const [args, input, expected] of cases) {
      const { code, err } = await run(args, { input });
      assertEquals(code, 1, args.join(" "));
      assertMatch(err, expected);
    }
    const { err } = await run([], { input: "crash\n", env: { MLLM_DEBUG: "1" } });
    assertStringIncludes(err, "fake_model.ts");
  });

  it("says when the context is full instead of forgetting", async () => {
    const { code, err } = await run(["-m", "fake"], { input: "0123456789\n".repeat(3) }, { context: 60 });
    assertEquals(code, 2);
    assertMatch(err, /context of 60 tokens is full; --context N makes it larger, up to 32768\n/);
    assertMatch(err, /\nmllm: line \d and those after it have no reply\n.*does not fit into 60/);
  });

  it("wrong usage is code 2 with a suggestion", async () => {
    const cases: [string[], string][] = [
      [["--modle", "x"], "Did you mean --model?"],
      [["--temp", "hot"], "temperature needs a number"],
      [["--threads", "0"], "--threads needs a whole number"],
      [["--activations", "f16"], "--activations can't be"],
      [["--prompt"], "--prompt needs a value"],
      [["--prompt", " "], "--prompt is empty"],
      [["stray"], 'there is no place for "stray"'],
      [["--eager=yes"], "--eager takes no value"],
    ];
    for (const [args, text] of cases) {
      const { code, out, err } = await run(args);
      assertEquals([code, out], [2, ""], args.join(" "));
      assertStringIncludes(err, text);
      assertEquals(err.trim().includes("\n"), false);
    }
    const help = await run(["--help"]);
    assertEquals(help.code, 0);
    assertStringIncludes(help.out, "--model PATH");
  });
});

describe("chat on a terminal that can't move its cursor", () => {
  const options = { stdinTerminal: true, stdoutTerminal: true, env: { TERM: "dumb" } };

  it("has prompts, commands and messages of several lines, and sends no sequences", async () => {
    const input = 'hello\n/set stats off\n"""\na\nb\n"""\n/nope\n//help\n/set\n/clear\ncount?\n/bye\nnever read\n';
    const { code, out } = await run([], { ...options, input });
    assertEquals(code, 0);
    for (
      const text of [
        "demonstration model",
        ">>> You said: hello\nprompt 6 tokens",
        ">>> stats: off (set by you)\n",
        ">>> ... ... ... You said: a\nb\n\n>>> mllm: there is no command /nope",
        "You said: /help\n",
        "1 messages\n",
      ]
    ) {
      assertStringIncludes(out, text);
    }
    // deno-lint-ignore no-control-regex
    assertEquals(/\x1b|\r|wordwrap|never/.test(out), false);
  });

  it("Ctrl+C stops a reply, or leaves where there is none", async () => {
    const host = new FakeHost(options);
    const done = chatMain(["-m", "fake"], host, fakeProgram({ tokenMs: 1 }));
    host.type("long\n");
    await host.shows("word5");
    host.signal("SIGINT");
    await host.shows("(stopped)");
    let code = 0;
    try {
      host.signal("SIGINT");
    } catch (error) {
      code = (error as ExitSignal).code;
    }
    assertEquals(code, 130);
    host.end();
    assertEquals([await done, host.listenerCount], [0, 0]);
  });
});

describe("chat on a terminal", () => {
  let home: string;
  let host: FakeHost;
  let done: Promise<number>;
  let program: ReturnType<typeof fakeProgram>;
  const start = (args: string[] = ["--model", "fake"], model: FakeOptions = {}, options: FakeHostOptions = {}) => {
    host = new FakeHost({
      stdinTerminal: true,
      stdoutTerminal: true,
      stderrTerminal: true,
      env: { HOME: home },
      ...options,
    });
    program = fakeProgram(model);
    done = chatMain(args, host, program);
  };
  const leave = async () => {
    host.type("\x04");
    assertEquals(await done, 0);
    assertEquals(host.rawModes.at(-1), false);
    assertEquals(host.listenerCount, 0);
    assertEquals(host.out.includes("\x1b[?2004l"), true);
  };
  beforeEach(() => {
    home = Deno.makeTempDirSync();
  });
  afterEach(() => Deno.removeSync(home, { recursive: true }));

  it("greets, answers, tells the speed, leaves", async () => {
    start([]);
    await host.shows(">>>");
    assertStringIncludes(host.screen.text(), "demonstration model");
    assertStringIncludes(host.screen.text(), "--model PATH");
    host.type("hello\r");
    await host.shows("t/s\n\n>>>");
    assertMatch(
      host.screen.text(),
      /\n>>> hello\nYou said: hello\nprompt 6 tokens \S+ t\/s · reply 16 tokens \S+ t\/s\n/,
    );
    host.type("again\r");
    await host.shows("cached");
    await host.shows("again\nYou said: again\n");
    await leave();
    assertEquals(host.screen.unknown, []);
    assertEquals(host.err.includes("loading"), true);
  });

  it("does without colours where they are not wanted", async () => {
    start(["--model", "fake"], {}, { env: { HOME: home, NO_COLOR: "1" } });
    host.type("hello\r");
    await host.shows("t/s\n");
    await leave();
    // deno-lint-ignore no-control-regex
    assertEquals(/\x1b\[[12]m/.test(host.out), false);
  });

  it("Ctrl+C stops a reply and keeps what was said", async () => {
    start(["--model", "fake"], { tokenMs: 1 });
    await host.shows(">>>");
    host.type("long\r");
    await host.shows("word5");
    host.type("\x03");
    await host.shows("(stopped)");
    host.type("count?\r");
    await host.shows("3 messages");
    await leave();
  });

  it("a reply stopped before its first token tells no speed and leaves the conversation as it was", async () => {
    start(["--model", "fake"], { tokenMs: 200 });
    host.type("hello\r");
    await host.shows("hello");
    await new Promise((resolve) => setTimeout(resolve, 10));
    host.type("\x03");
    await host.shows("(stopped: your message is not kept; arrow up brings it back)");
    assertEquals(host.screen.text().includes("t/s"), false);
    host.type("/stats\r");
    await host.shows("last       stopped: your message is not kept");
    assertMatch(host.screen.text(), /context {4}0 of \d+ tokens used/);
    program.engine.model.tokenMs = 0;
    host.type("count?\r");
    await host.shows("1 messages");
    await leave();
  });

  it("a reply that does not stop is left by the third Ctrl+C, with the terminal restored", async () => {
    start(["--model", "fake"], { tokenMs: 1 });
    program.engine.model.run = () => ({
      tokens: [],
      text: "",
      stats: null!,
      async *[Symbol.asyncIterator]() {
        yield { id: 1, text: "thinking" };
        await new Promise(() => {});
      },
    });
    host.type("x\r");
    await host.shows("thinking");
    let code = 0;
    try {
      for (let i = 0; i < 3; i++) host.signal("SIGINT");
    } catch (error) {
      code = (error as ExitSignal).code;
    }
    assertEquals(code, 130);
    assertEquals(host.rawModes.at(-1), false);
  });

  it("Ctrl+C at an empty prompt says how to leave, the second leaves", async () => {
    start();
    await host.shows(">>>");
    host.type("\x03");
    await host.shows("Ctrl+C again");
    host.type("hello\r");
    await host.shows("You said");
    host.type("\x03");
    await host.shows("You said: hello\n");
    host.type("draft");
    await host.shows(">>> draft");
    host.type("\x03");
    host.type("\x03");
    host.type("still here\r");
    await host.shows("You said: still here");
    host.type("\x03");
    host.type("\x03");
    assertEquals(await done, 0);
    assertEquals(host.rawModes.at(-1), false);
  });

  it("keeps what is typed during a reply for the next prompt", async () => {
    start(["--model", "fake", "-n", "100"], { tokenMs: 1 });
    host.type("long\r");
    await host.shows("word3");
    host.type("next question\rand more");
    await host.shows("You said: next question");
    await host.shows(">>> and more");
    host.type("\x15");
    await leave();
  });

  it("a long paste arrives whole", async () => {
    start(["--model", "fake"], { context: 30_000 });
    await host.shows(">>>");
    host.type(`\x1b[200~${"many words ".repeat(2000)}\x1b[201~`);
    await host.shows("[pasted: 1 line, 22,000 characters]");
    host.type("\r");
    await host.shows("You said 22000 characters.");
    await leave();
  });

  it("wraps replies at words", async () => {
    start(["--model", "fake"], {}, { columns: 30 });
    host.type("long\r");
    await host.shows("word399");
    for (const line of host.screen.text().split("\n")) assertEquals(line.length <= 30, true, line);
    assertStringIncludes(host.screen.text(), "word0 word1 word2 word3 word4\nword5");
    await leave();
  });

  it("commands: help, unknown, set, stats, clear, system", async () => {
    start();
    host.type("/\r");
    await host.shows("/save FILE");
    host.type("/halp\r");
    await host.shows("there is no command /halp. Did you mean /help?");
    host.type("/set temprature 1\r");
    await host.shows('there is no setting "temprature". Did you mean temperature?');
    host.type("/set temp 0.7\r");
    await host.shows("temperature: 0.7 (set by you)");
    host.type('/set stop "END" ""\r');
    await host.shows("stop: a text of nothing ends no reply");
    host.type("/set top_p 3\r");
    await host.shows("top_p needs a number from 0 to 1, not 3");
    host.type('/set stop "END" "a b"\r');
    await host.shows('stop: "END" "a b" (set by you)');
    host.type("/set wordwrap off\r/set\r");
    await host.shows("go back to the");
    const table = host.screen.text();
    assertMatch(table, /\n {2}temperature +0\.7 +yours +0 always takes/);
    assertMatch(table, /\n {2}top_k +20 +model +the k/);
    assertMatch(table, /\n {2}top_p +0\.95 +default +the likeliest/);
    assertMatch(table, /\n {2}seed +random +default +the same/);
    assertMatch(table, /\n {2}max_tokens +no limit +default +most/);
    assertMatch(table, /\n {2}stop +"END" "a b" +yours +ends/);
    assertMatch(table, /\n {2}wordwrap +off +yours +wrap/);
    host.type("/set temperature default\r");
    await host.shows("temperature: 0.6 (the model's recommendation)");
    host.type("/set toString on\r");
    await host.shows('there is no setting "tostring"');
    host.type("/set reset\r");
    await host.shows("All settings are");
    host.type("/set wordwrap\r/set stop\r");
    await host.shows("wordwrap: on (the default)");
    await host.shows("stop: none (the default)");
    host.type("hello\r");
    await host.shows("You said");
    host.type("/stats\r");
    await host.shows("prompts    6 tokens (0 cached)");
    host.type("/clear the table, please\r");
    await host.shows("/clear takes nothing behind it");
    host.type("/help save\r/help /nope\r");
    await host.shows("there is no command /nope");
    host.type("/set stat off\r");
    await host.shows('there is no setting "stat". Did you mean stats?');
    host.type("/clear\rcount?\r");
    await host.shows("1 messages");
    host.type("/system\r");
    await host.shows("No system prompt is set");
    host.type("/system You are brief.\rsystem?\r");
    await host.shows("\nYou are brief.");
    host.type("fail\r");
    await host.shows("mllm: the fake backend failed. Try again");
    host.type("/bye\r");
    assertEquals(await done, 0);
  });

  it("saves and loads conversations, and overwrites nothing by surprise", async () => {
    start();
    const file = `${home}/talk.json`;
    Deno.writeTextFileSync(`${home}/other.txt`, "precious");
    host.type("hello\r/set top_k 5\r/save ~/talk.json\r");
    await host.shows("2 messages saved");
    host.type("/save ~/other.txt\r");
    await host.shows("there is a file of that name already");
    assertEquals(Deno.readTextFileSync(`${home}/other.txt`), "precious");
    host.type(`/load ${home}/other.txt\r`);
    await host.shows("it is not JSON");
    host.type("again\r/save ~/talk.json\r");
    await host.shows("4 messages saved");
    const saved = JSON.parse(Deno.readTextFileSync(file));
    assertEquals(saved.messages.map((m: { content: string }) => m.content), [
      "hello",
      "You said: hello",
      "again",
      "You said: again",
    ]);
    assertEquals([saved.format, saved.version, saved.settings], ["mllm-conversation", 1, { top_k: 5 }]);
    host.type(`/clear\r/set reset\r/load ${file}\rcount?\r`);
    await host.shows("5 messages");
    assertEquals(program.engine.model.calls.at(-1)!.sampling, { topK: 5 });
    await leave();
  });

  it("remembers what was typed until the next time, unless told not to", async () => {
    start();
    host.type("remember me\r");
    await host.shows("You said");
    await leave();
    start();
    await host.shows(">>>");
    host.type("\x1b[A");
    await host.shows(">>> remember me");
    host.type("\x15");
    await leave();
    start(["--model", "fake", "--no-history"]);
    host.type("secret\r");
    await host.shows("You said: secret");
    await leave();
    assertEquals(Deno.readTextFileSync(`${home}/.local/state/mllm/history`), '"remember me"\n');
  });

  it("says when what is typed can't be kept", async () => {
    Deno.writeTextFileSync(`${home}/.local`, "a file is in the way");
    start();
    await host.shows("What you type is not kept for the next time:");
    assertEquals(host.screen.text().includes("os error"), false);
    host.type("hello\r");
    await host.shows("You said: hello");
    await leave();
    start(["--model", "fake"], {}, { env: {} });
    host.type("/set history on\r");
    await host.shows("there is no home folder to keep the history in");
    await leave();
  });

  it("restores the terminal when it is told to end, and when the input ends", async () => {
    start();
    await host.shows(">>>");
    let code = 0;
    try {
      host.signal("SIGTERM");
    } catch (error) {
      code = (error as ExitSignal).code;
    }
    assertEquals([code, host.rawModes.at(-1)], [143, false]);
    start();
    await host.shows(">>>");
    host.end();
    assertEquals(await done, 0);
    assertEquals(host.rawModes.at(-1), false);
  });

  it("follows the window", async () => {
    start();
    host.type("0123456789".repeat(5));
    await host.shows(`>>> ${"0123456789".repeat(5)}`);
    host.screen.columns = 100;
    host.signal("SIGWINCH");
    host.signal("SIGCONT");
    host.type("\x15");
    await leave();
  });
});
