/**
 * The engines that `bench:peers` compares: how each is installed into `.peers/` from its registry, how a GGUF file
 * becomes what it reads, and how one process of it is started.
 */
import { NPM, repositoryRoot } from "../workspace.ts";
import { convertForMnn } from "./mnn_model.ts";
import { output, pythonEnvironment } from "./process.ts";
import type { PeerReply, PeerRequest } from "./protocol.ts";

const root = repositoryRoot();
const folder = `${root}/.peers`;

const LLAMA_CPP = "3.22.1";
const MNN = "3.6.1";
const IK_LLAMA_CPP = "0.1.5";

/** A command line that runs a request in a process of its own. */
interface Launch {
  command: string;
  args: string[];
  cwd: string;
}

/** One engine. */
export interface Engine {
  name: string;
  /** Installs it and prepares a model, once; nothing of this is measured. Gives what starts a process. */
  prepare(model: string, options: EngineOptions): Promise<(request: PeerRequest) => Launch>;
}

/** Choices that some engines heed. */
export interface EngineOptions {
  /** ISA level that every engine is held to; those that can't choose run what they have. */
  level?: string;
  /** A model that MNN's own tools converted, instead of converting the file. */
  mnnModel?: string;
}

/** llama.cpp's variants of its CPU library (ggml-cpu-NAME) that need no more than a level of ours. */
const LLAMA_CPP_VARIANTS: Readonly<Record<string, readonly string[]>> = {
  portable: ["x64"],
  avx2: ["x64", "sse42", "sandybridge", "ivybridge", "piledriver", "haswell"],
  avxvnni: ["x64", "sse42", "sandybridge", "ivybridge", "haswell", "alderlake"],
  avx512vnni: ["x64", "sse42", "haswell", "skylakex", "cannonlake", "cascadelake", "icelake", "cooperlake", "zen4"],
};

const mllm: Engine = {
  name: "mllm",
  prepare: () =>
    Promise.resolve((request) => ({
      command: Deno.execPath(),
      args: ["run", "-q", "-A", "tools/bench/peer_mllm.ts", JSON.stringify(request)],
      cwd: root,
    })),
};

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function installLlamaCpp(): Promise<void> {
  const wanted = `${folder}/node_modules/node-llama-cpp/package.json`;
  if (await exists(wanted) && JSON.parse(await Deno.readTextFile(wanted)).version === LLAMA_CPP) return;
  console.error(`bench:peers: installing node-llama-cpp ${LLAMA_CPP} into .peers/ …`);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/package.json`, '{ "private": true, "type": "module" }\n');
  const os = { darwin: "mac", windows: "win" }[Deno.build.os as string] ?? Deno.build.os;
  const binary = `@node-llama-cpp/${os}-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}`; // without those for GPUs
  const packages = [`node-llama-cpp@${LLAMA_CPP}`, `${binary}@${LLAMA_CPP}`];
  await output(
    NPM,
    ["install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", ...packages],
    folder,
  );
}

async function linkTree(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name, isDirectory, isFile } of Deno.readDir(from)) {
    if (isDirectory) await linkTree(`${from}/${name}`, `${to}/${name}`);
    else if (isFile) await Deno.link(`${from}/${name}`, `${to}/${name}`);
  }
}

async function removeVariants(tree: string, kept: readonly string[]): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(tree)) {
    const variant = /^(?:lib)?ggml-cpu-(\w+)\./.exec(name)?.[1];
    if (isDirectory) await removeVariants(`${tree}/${name}`, kept);
    else if (variant !== undefined && !kept.includes(variant)) await Deno.remove(`${tree}/${name}`);
  }
}

/** The folder to run in: for a level, a copy of the package (hard links) without the variants that need more. */
async function llamaCppFolder(level: string | undefined): Promise<string> {
  const kept = level === undefined ? undefined : LLAMA_CPP_VARIANTS[level];
  if (kept === undefined) return folder;
  const copy = `${folder}/llama-cpp-${LLAMA_CPP}-${level}`;
  if (await exists(copy)) return copy;
  const partial = await Deno.makeTempDir({ dir: folder });
  await linkTree(`${folder}/node_modules`, `${partial}/node_modules`);
  await removeVariants(`${partial}/node_modules/@node-llama-cpp`, kept);
  await Deno.rename(partial, copy);
  return copy;
}

const nodeLlamaCpp: Engine = {
  name: "node-llama-cpp",
  async prepare(_model, { level }) {
    await installLlamaCpp();
    const cwd = await llamaCppFolder(level);
    const script = `${root}/tools/bench/peer_node_llama_cpp.mjs`;
    return (request) => ({ command: "node", args: [script, JSON.stringify(request)], cwd });
  },
};

const mnn: Engine = {
  name: "MNN",
  async prepare(model, { mnnModel }) {
    const python = await pythonEnvironment(`${folder}/mnn-${MNN}`, [`MNN==${MNN}`]);
    const converted = mnnModel ?? await convertForMnn(model, folder, `MNN==${MNN}`);
    const script = `${root}/tools/bench/peer_mnn.py`;
    return (request) => ({
      command: python,
      args: [script, JSON.stringify({ ...request, model: converted })],
      cwd: folder,
    });
  },
};

const ikLlamaCpp: Engine = {
  name: "ik_llama.cpp",
  async prepare() {
    const python = await pythonEnvironment(`${folder}/ik-${IK_LLAMA_CPP}`, [`ik-llama-cpp-python==${IK_LLAMA_CPP}`]);
    const script = `${root}/tools/bench/peer_ik.py`;
    return (request) => ({ command: python, args: [script, JSON.stringify(request)], cwd: folder });
  },
};

/** All engines by the name that `--engines` takes. */
export const engines: Readonly<Record<string, Engine>> = { mllm, "node-llama-cpp": nodeLlamaCpp, mnn, ik: ikLlamaCpp };

/** What one process did. */
export interface PeerRun extends Omit<PeerReply, "firstTokenEpochMs"> {
  /** From the start of the process to its first token. */
  loadToFirstTokenMs: number;
}

/** Runs one process to its end. Throws with the end of its stderr when it fails. */
export async function runEngine({ command, args, cwd }: Launch): Promise<PeerRun> {
  const startEpochMs = Date.now();
  const lines = (await output(command, args, cwd)).trim().split("\n");
  const { firstTokenEpochMs, ...reply } = JSON.parse(lines.at(-1)!) as PeerReply;
  return { ...reply, loadToFirstTokenMs: firstTokenEpochMs - startEpochMs };
}
