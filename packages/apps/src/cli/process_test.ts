/** The programs as programs, with the permissions of their tasks: exit codes, streams, the real engine. */
import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import type { TestProfile } from "./bench_profile.ts";

const ROOT = new URL("../../../../", import.meta.url);
const MODEL = "packages/models/testdata/qwen3-tied";

const reason = Deno.permissions.querySync({ name: "run" }).state === "granted" ? undefined : "may not run programs";

interface Result {
  code: number;
  out: string;
  err: string;
}

async function run(program: string, args: string[], input = "", env: Record<string, string> = {}): Promise<Result> {
  const permissions = ["run", "-q", "--no-check", "--no-prompt", "-P=apps"];
  const command = new Deno.Command(Deno.execPath(), {
    args: [...permissions, `packages/apps/${program}.ts`, ...args],
    cwd: ROOT,
    env: { INIT_CWD: fileURLToPath(ROOT), ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const child = command.spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

/** The same without a library to run on is a failure that says so; where there is one it has to work. */
const hasLibrary = await (async () => {
  if (reason !== undefined) return false;
  const { out } = await run("mllm", ["doctor", "--json"]);
  return JSON.parse(out).backends.some((backend: { name: string; available: boolean }) => backend.available);
})();

describe("the programs", { skip: reason !== undefined }, () => {
  it("exit codes: 0 for help, 2 for wrong usage, 1 for failures; one line, no stack trace", async () => {
    for (const program of ["mllm", "chat"]) {
      const help = await run(program, ["--help"]);
      assertEquals([help.code, help.err], [0, ""]);
      const wrong = await run(program, program === "mllm" ? ["info", "--modl"] : ["--modl"]);
      assertEquals([wrong.code, wrong.out], [2, ""]);
      assertStringIncludes(wrong.err, "Did you mean --model?");
      const missing = await run(program, program === "mllm" ? ["info", "-m", "nowhere"] : ["-m", "nowhere"], "hi\n");
      assertEquals([missing.code, missing.out], [1, ""]);
      assertMatch(missing.err, /^mllm: [^\n]*nowhere[^\n]*\n$/);
    }
  });

  it("paths are relative to the folder in which the user started the task", async () => {
    const folder = fileURLToPath(new URL("packages/models", ROOT));
    const { code, out } = await run("mllm", ["tokenize", "-m", "testdata/qwen3-tied", "hi"], "", { INIT_CWD: folder });
    assertEquals([code, out !== ""], [0, true]);
  });

  it("doctor names every backend", async () => {
    const { code, out } = await run("mllm", ["doctor"]);
    assertEquals(code, 0);
    for (const name of ["x86", "arm", "qnn", "cann"]) assertMatch(out, new RegExp(`^${name}: `, "m"));
  });

  it("tokenizes without a backend", async () => {
    const { code, out, err } = await run("mllm", ["tokenize", "-m", MODEL, "--json"], "hello");
    assertEquals([code, err], [0, ""]);
    assertEquals(JSON.parse(out).tokens.length > 0, true);
  });

  it("generates the same in every way of running", { skip: !hasLibrary }, async () => {
    const args = ["generate", "-m", MODEL, "--tokens", "5,6,7,8,9", "-n", "8", "--greedy", "--ignore-eos", "--json"];
    const tokens = async (...more: string[]) => {
      const { code, out, err } = await run("mllm", [...args, "--activations", "f32", ...more]);
      assertEquals(code, 0, err);
      return JSON.parse(out).tokens;
    };
    const expected = await tokens();
    assertEquals(expected.length, 8);
    assertEquals(await tokens("--eager"), expected);
    assertEquals(await tokens("--threads", "1", "--chunk", "2"), expected);
    assertEquals(await tokens("--backend", "x86:portable"), expected);
  });

  it("chats in a pipe", { skip: !hasLibrary }, async () => {
    const { code, out } = await run("chat", ["-m", MODEL, "-n", "4", "--greedy"], "hello\n/clear\nhello\n");
    assertEquals(code, 0);
    assertEquals(out.endsWith("\n"), true);
  });

  it("bench prints JSON rows", { skip: !hasLibrary }, async () => {
    const { code, out, err } = await run("mllm", [
      "bench",
      "-m",
      MODEL,
      "-p",
      "16",
      "-n",
      "4",
      "-r",
      "2",
      "-o",
      "json",
    ]);
    assertEquals([code, err], [0, ""]);
    assertEquals(JSON.parse(out).map((row: { n_prompt: number; n_gen: number }) => [row.n_prompt, row.n_gen]), [
      [16, 0],
      [0, 4],
    ]);
  });

  it("bench --profile accounts for the time of each test", { skip: !hasLibrary }, async () => {
    const args = ["bench", "-m", MODEL, "-p", "16", "-n", "4", "-d", "3", "-r", "2", "-o", "json", "--profile"];
    const { code, out } = await run("mllm", args);
    assertEquals(code, 0);
    const rows = JSON.parse(out) as { profile: TestProfile }[];
    assertEquals(rows.map(({ profile }) => profile.programs.map(({ name }) => name)), [["prefill"], ["decode"]]);
    for (const [i, { profile }] of rows.entries()) {
      const tables = profile.ops.filter(({ op }) => op === "embedding"); // once in every run of a program
      assertEquals(tables.reduce((sum, { calls }) => sum + calls, 0), [2, 8][i]);
      assertEquals(profile.programs[0].arena_bytes >= profile.programs[0].arena_lower_bound_bytes, true);
      const spent = profile.ops.reduce((sum, { time_ns }) => sum + time_ns, profile.outside_ns);
      assertEquals(spent, profile.wall_ns);
    }
  });

  it("ends quietly when nobody reads", { skip: Deno.build.os === "windows" || !hasLibrary }, async () => {
    const program = `"$0" run -q --no-check --no-prompt -P=apps packages/apps/mllm.ts`;
    const script = `${program} generate -m ${MODEL} --tokens 1,2 -n 400 --ignore-eos | head -c 1 >/dev/null`;
    const { stderr } = await new Deno.Command("bash", { args: ["-c", script, Deno.execPath()], cwd: ROOT }).output();
    assertEquals(new TextDecoder().decode(stderr), "");
  });
});
