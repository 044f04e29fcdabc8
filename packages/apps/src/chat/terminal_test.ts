/** The chat in a real terminal (tmux), on the fake model: what tests with a fake host can't show. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";

const ROOT = new URL("../../../../", import.meta.url);
const PROGRAM = new URL("../../testing/fake_chat.ts", import.meta.url);

/** Why there is no terminal to test with, or undefined. */
function missing(): string | undefined {
  if (Deno.build.os === "windows") return "tmux is not for Windows";
  if (Deno.permissions.querySync({ name: "run" }).state !== "granted") return "may not run programs";
  try {
    return new Deno.Command("tmux", { args: ["-V"] }).outputSync().success ? undefined : "tmux does not run";
  } catch {
    return "tmux is not installed";
  }
}

const reason = missing();
if (reason !== undefined) console.log(`the chat is not tested in a terminal: ${reason}`);

describe("the chat in tmux", { skip: reason !== undefined }, () => {
  let folder: string;
  let socket: string;

  async function tmux(...args: string[]): Promise<string> {
    const command = new Deno.Command("tmux", { args: ["-S", socket, "-f", "/dev/null", ...args], cwd: ROOT });
    const { stdout, stderr, success } = await command.output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  }
  const screen = async () => (await tmux("capture-pane", "-p", "-J", "-S", "-500", "-t", "chat")).trimEnd();
  const keys = (...args: string[]) => tmux("send-keys", "-t", "chat", ...args);
  async function shows(text: string | RegExp): Promise<string> {
    let now = "";
    for (let i = 0; i < 400; i++) {
      now = await screen();
      if (typeof text === "string" ? now.includes(text) : text.test(now)) return now;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error(`${text} is not on the screen:\n${now}`);
  }
  async function start(...args: string[]): Promise<void> {
    // A shell around the program: its own prompt shows that the terminal is as before.
    const run =
      `${Deno.execPath()} run -q --no-check --no-prompt --allow-read --allow-write --allow-env ${PROGRAM.pathname}`;
    await keys(`${run} ${args.join(" ")}; echo left with $?; stty -a | grep -o -- '-\\?icanon'`, "Enter");
    await shows(/^>>>/m);
  }

  beforeEach(async () => {
    folder = await Deno.makeTempDir();
    socket = `${folder}/tmux`;
    const shell = `env HOME=${folder} PS1=shell: bash --norc --noprofile`;
    await tmux("new-session", "-d", "-s", "chat", "-x", "80", "-y", "24", shell);
    await shows("shell:");
  });
  afterEach(async () => {
    await tmux("kill-server").catch(() => {});
    await Deno.remove(folder, { recursive: true });
  });

  it("talks, edits, and leaves the terminal as it was", async () => {
    await start("-m", "fake");
    await keys("hallo", "Left", "Left", "Left", "Left", "DC", "e", "Enter");
    await shows("You said: hello");
    await keys("Up", "Home", "oh ", "Enter");
    await shows("You said: oh hello");
    await keys("first\\", "Enter", "second", "Enter");
    assertMatch(await shows("You said: first"), />>> first\n\.\.\. second\nYou said: first\nsecond\n/);
    await keys("C-d");
    await shows(/left with 0\nicanon/);
  });

  it("stops a long reply by Ctrl+C and goes on", async () => {
    await start("-m", "fake", "--slow");
    await keys("long", "Enter");
    await shows("word10 ");
    await keys("C-c");
    const stopped = await shows("(stopped)");
    assertEquals(stopped.includes("word399"), false);
    await keys("count?", "Enter");
    await shows(/3 messages\n[^\n]*t\/s\n+>>>$/); // the reply is over, Ctrl+C is for the prompt again
    await keys("C-c");
    await shows("Ctrl+C again");
    await keys("C-c");
    await shows(/left with 0\nicanon/);
  });

  it("takes a paste of thousands of words in one piece, at once", async () => {
    await start("-m", "fake");
    await Deno.writeTextFile(`${folder}/paste`, "some words of a long text\n".repeat(800));
    await tmux("load-buffer", `${folder}/paste`);
    const startMs = performance.now();
    await tmux("paste-buffer", "-p", "-t", "chat");
    await shows("[pasted: 801 lines, 20,800 characters]");
    assertEquals(performance.now() - startMs < 3000, true);
    await keys("Enter");
    await shows("You said 20800 characters.");
  });

  it("follows a window that changes size, also in the middle of a reply", async () => {
    await start("-m", "fake", "--slow");
    await keys("a line that is longer than the window will be in a moment");
    await tmux("resize-window", "-t", "chat", "-x", "40", "-y", "20");
    await shows("moment");
    await tmux("resize-window", "-t", "chat", "-x", "100", "-y", "20");
    const once = await shows(/moment$/);
    assertEquals(once.split("a line that").length, 2, once);
    await keys("C-u", "long", "Enter");
    await shows("word20 ");
    await tmux("resize-window", "-t", "chat", "-x", "40", "-y", "20");
    await shows("word80 ");
    await keys("C-c");
    await shows("(stopped)");
    await keys("after", "Enter");
    assertStringIncludes(await shows("You said: after"), ">>> after");
  });

  it("restores the terminal when it is killed politely", async () => {
    await start("-m", "fake");
    const shell = (await tmux("display-message", "-p", "-t", "chat", "#{pane_pid}")).trim();
    const children = await new Deno.Command("pgrep", { args: ["-P", shell] }).output().catch(() => undefined);
    if (children === undefined) return; // without pgrep the signal tests with a fake host have to do
    Deno.kill(Number(new TextDecoder().decode(children.stdout).trim()), "SIGTERM");
    await shows(/left with 143\nicanon/);
  });
});
