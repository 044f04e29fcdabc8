/**
 * `deno task bench:peers MODEL.gguf … [-p 512] [-n 128] [-r 3] [-t 2] [--backend x86]`: this engine and node-llama-cpp
 * (npm's prebuilt llama.cpp) on the same files in the same run, turn by turn, each as a process of its own. Prints
 * medians in tokens per second and their ratio. node-llama-cpp is no dependency of this repository: the task installs it
 * into `.peers/`. Needs Node for the peer.
 */
import { parseArgs } from "node:util";
import { command, NPM, repositoryRoot } from "../workspace.ts";

const PEER = "node-llama-cpp@3.22.1";
const root = repositoryRoot();
const folder = `${root}/.peers`;

interface Speeds {
  pp: number[];
  tg: number[];
  loadToFirstMs: number;
  rssBytes: number;
}

async function output(program: string, args: string[], cwd: string): Promise<string> {
  const { success, stdout, stderr } = await command(program, { args, cwd }).output();
  if (!success) {
    throw new Error(`${program} ${args.join(" ")} failed:\n${new TextDecoder().decode(stderr).slice(-2000)}`);
  }
  return new TextDecoder().decode(stdout);
}

async function installPeer(): Promise<void> {
  try {
    await Deno.stat(`${folder}/node_modules/node-llama-cpp`);
  } catch {
    console.error(`bench:peers: installing ${PEER} into .peers/ …`);
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/package.json`, '{ "private": true, "type": "module" }\n');
    await output(NPM, ["install", "--ignore-scripts", "--no-audit", "--no-fund", PEER], folder);
  }
}

interface Settings {
  prompt: string;
  generate: string;
  threads: string;
  backend: string;
}

async function measureOurs(model: string, settings: Settings): Promise<Speeds> {
  const args = ["run", "-q", "-P=apps", "packages/apps/mllm.ts", "bench", "-m", model, "-o", "json", "-r", "1"];
  args.push(
    "-p",
    settings.prompt,
    "-n",
    settings.generate,
    "--threads",
    settings.threads,
    "--backend",
    settings.backend,
  );
  const rows = JSON.parse(await output("deno", args, root)) as { n_gen: number; samples_ts: number[] }[];
  const samples = (generates: boolean) =>
    rows.filter((row) => (row.n_gen > 0) === generates).flatMap((row) => row.samples_ts);
  return { pp: samples(false), tg: samples(true), loadToFirstMs: 0, rssBytes: 0 };
}

async function measurePeer(model: string, settings: Settings): Promise<Speeds> {
  const script = `${root}/tools/bench/peer_node_llama_cpp.mjs`;
  const args = [script, model, settings.prompt, settings.generate, "1", settings.threads];
  return JSON.parse((await output("node", args, folder)).trim().split("\n").at(-1)!);
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function compare(model: string, settings: Settings, repetitions: number): Promise<void> {
  const ours: Speeds[] = [];
  const peers: Speeds[] = [];
  for (let i = 0; i < repetitions; i++) { // in turn, so that a drift of the machine hits both
    ours.push(await measureOurs(model, settings));
    peers.push(await measurePeer(model, settings));
  }
  const name = model.replace(/^.*[\\/]/, "");
  for (const [test, key] of [[`pp${settings.prompt}`, "pp"], [`tg${settings.generate}`, "tg"]] as const) {
    const mine = median(ours.flatMap((speeds) => speeds[key]));
    const theirs = median(peers.flatMap((speeds) => speeds[key]));
    const ratio = (mine / theirs).toFixed(2);
    console.log(`| ${name} | ${test} | ${mine.toFixed(1)} | ${theirs.toFixed(1)} | ${ratio} |`);
  }
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: {
      p: { type: "string", short: "p", default: "512" },
      n: { type: "string", short: "n", default: "128" },
      r: { type: "string", short: "r", default: "3" },
      t: { type: "string", short: "t", default: "2" },
      backend: { type: "string", default: "x86" },
    },
  });
  if (positionals.length === 0) {
    console.error("bench:peers: name at least one GGUF file");
    Deno.exit(2);
  }
  await installPeer();
  const settings = { prompt: values.p, generate: values.n, threads: values.t, backend: values.backend };
  console.log(
    `| model | test | mllm (${values.backend}) t/s | ${PEER} t/s | ratio |\n| --- | --- | ---: | ---: | ---: |`,
  );
  for (const model of positionals) {
    const path = await Deno.realPath(model);
    await compare(path, settings, Number(values.r));
  }
}
