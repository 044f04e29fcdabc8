/**
 * Where the native library and the demonstration model are: beside the source in a checkout; inside the virtual file
 * system of a binary made by `deno compile`, from where they are written out to a cache folder first, because the
 * system can neither load a library from there nor map a file.
 *
 * What is written out goes to a folder named by the content's SHA-256: another version never meets an older one's
 * files, two programs may do it at once, and every start checks the content, so that a damaged file is replaced.
 */
import { MllmError, systemReason } from "@mllm/core";
import { embeddedModelPath } from "@mllm/models";

export interface AssetOptions {
  /** True inside a compiled binary. */
  isVirtual: boolean;
  /** Where to write assets out; undefined when this user has no such place. */
  cacheFolder: string | undefined;
}

/** A cache for this user: `MLLM_CACHE`, else the system's custom (`$XDG_CACHE_HOME/mllm`, `~/.cache/mllm`, …). */
export function cacheFolder(env: (name: string) => string | undefined, os: string = Deno.build.os): string | undefined {
  const own = env("MLLM_CACHE");
  if (own) return own;
  const home = env("HOME");
  if (os === "windows") {
    const local = env("LOCALAPPDATA") ?? env("USERPROFILE");
    return local ? `${local}\\mllm\\cache` : undefined;
  }
  if (os === "darwin") return home ? `${home}/Library/Caches/mllm` : undefined;
  const xdg = env("XDG_CACHE_HOME");
  if (xdg && xdg.startsWith("/")) return `${xdg}/mllm`;
  return home ? `${home}/.cache/mllm` : undefined;
}

/** A file of an asset: its path below the asset ("" when the asset is one file) and its bytes. */
interface AssetFile {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
}

const FILES_MAX = 1000;

function baseName(path: string): string {
  return path.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
}

async function readAsset(source: string): Promise<AssetFile[]> {
  const { isDirectory } = await Deno.stat(source);
  if (!isDirectory) return [{ name: "", bytes: await Deno.readFile(source) }];
  const files: AssetFile[] = [];
  const visit = async (folder: string, prefix: string) => {
    for await (const entry of Deno.readDir(folder)) {
      const name = prefix + entry.name;
      if (entry.isDirectory) await visit(`${folder}/${entry.name}`, `${name}/`);
      else files.push({ name, bytes: await Deno.readFile(`${folder}/${entry.name}`) });
      if (files.length > FILES_MAX) {
        throw new MllmError("internal", `an asset has more than ${FILES_MAX} files`, { file: source });
      }
    }
  };
  await visit(source, "");
  return files.sort((a, b) => a.name < b.name ? -1 : 1);
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** One hash over names and contents. */
async function hashFiles(files: readonly AssetFile[]): Promise<string> {
  const lines: string[] = [];
  for (const { name, bytes } of files) lines.push(`${await sha256(bytes)} ${name}\n`);
  return await sha256(new TextEncoder().encode(lines.join("")));
}

async function isIntact(path: string, hash: string): Promise<boolean> {
  try {
    return await hashFiles(await readAsset(path)) === hash;
  } catch {
    return false;
  }
}

async function writeOut(files: readonly AssetFile[], temporary: string): Promise<void> {
  for (const { name, bytes } of files) {
    const path = name === "" ? temporary : `${temporary}/${name}`;
    await Deno.mkdir(path.replace(/[\\/][^\\/]*$/, ""), { recursive: true, mode: 0o700 });
    await Deno.writeFile(path, bytes, { createNew: true, mode: 0o600 });
  }
}

/** Moves what was written to its place; another program may have been faster, or something broken may be there. */
async function putInPlace(temporary: string, target: string, hash: string): Promise<void> {
  try {
    await Deno.rename(temporary, target);
  } catch (error) {
    if (await isIntact(target, hash)) return;
    const aside = `${temporary}.old`;
    try {
      await Deno.rename(target, aside);
    } catch {
      throw error;
    }
    await Deno.rename(temporary, target);
    await Deno.remove(aside, { recursive: true }).catch(() => {});
  }
}

/**
 * A path of `source` (file or folder) that the system itself can open. Throws MllmError `not_found` when the asset is
 * missing, `io` when it can't be written out.
 */
export async function assetPath(source: string, { isVirtual, cacheFolder }: AssetOptions): Promise<string> {
  if (!isVirtual) return source;
  let files: AssetFile[];
  try {
    files = await readAsset(source);
  } catch (error) {
    if (error instanceof MllmError) throw error;
    throw new MllmError("not_found", "this binary lacks a part that should be inside", {
      file: source,
      next: "Build it again with `deno task compile`",
      cause: error,
    });
  }
  const next = "Set MLLM_CACHE to a folder that can be written";
  if (cacheFolder === undefined) {
    throw new MllmError("io", "there is no home folder to unpack this program's parts to", { next });
  }
  const hash = await hashFiles(files);
  const folder = `${cacheFolder}/${hash.slice(0, 32)}`;
  const target = `${folder}/${baseName(source)}`;
  if (await isIntact(target, hash)) return target;
  const temporary = `${folder}/${crypto.randomUUID()}.tmp`;
  try {
    await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
    await writeOut(files, temporary);
    await putInPlace(temporary, target, hash);
  } catch (error) {
    throw new MllmError("io", `this program's parts can't be unpacked: ${systemReason(error)}`, {
      file: target,
      next,
      cause: error,
    });
  } finally {
    await Deno.remove(temporary, { recursive: true }).catch(() => {});
  }
  if (!await isIntact(target, hash)) {
    throw new MllmError("io", "what was unpacked does not read back as it was written", { file: target, next });
  }
  return target;
}

/** The demonstration model, ready to be opened. Throws MllmError. */
export async function embeddedModel(options: AssetOptions): Promise<string> {
  try {
    await Deno.stat(embeddedModelPath);
  } catch (error) {
    throw new MllmError("not_found", "the demonstration model is not here", {
      file: embeddedModelPath,
      next: "Name a model: --model PATH (a Hugging Face folder or a GGUF file)",
      cause: error,
    });
  }
  return await assetPath(embeddedModelPath, options);
}
