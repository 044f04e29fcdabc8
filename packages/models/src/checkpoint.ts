import { fileExists, MllmError, statFile, type WeightInfo } from "@mllm/core";
import { openGgufCheckpoint } from "./gguf_mapping.ts";
import { openHfFolder } from "./hf_folder.ts";
import type { TokenizerSource } from "./tokenizer/create_tokenizer.ts";

/** A model on disk, opened: everything but the weights' data, which the engine maps. */
export interface Checkpoint {
  /** What was opened: a folder or a GGUF file. */
  path: string;
  /** Layout of the files: a folder as on the Hugging Face hub, or one GGUF file (or its parts). */
  format: "huggingface" | "gguf";
  /** Hugging Face's config.json in its classic form (`normalizeConfig`); GGUF metadata is mapped to it. */
  config: Record<string, unknown>;
  /** File that `config` came from, for messages. */
  configFile: string;
  /** generation_config.json, or {} */
  generationConfig: Record<string, unknown>;
  /** Where each tensor lies, by its Hugging Face name; GGUF names are mapped to these. */
  weights: Map<string, WeightInfo>;
  /** What `createTokenizer` makes the tokenizer from; parsed, not checked. */
  tokenizer: TokenizerSource;
  /** Jinja source of the chat template for plain conversations; undefined for base models. */
  chatTemplate?: string;
  /** End-of-sequence ids of config.json or the GGUF metadata; those of the generation config are not among them. */
  eosIds: number[];
  /** Files, metadata keys and templates that are there but not used; model code adds config fields it never read. */
  ignored: string[];
}

/**
 * Opens a Hugging Face folder (config.json, safetensors, tokenizer.json) or a GGUF file. Reads headers only.
 * A folder without config.json that holds exactly one GGUF model opens that.
 *
 * @throws MllmError `not_found`, `io`, `invalid_file` or `unsupported`, naming the file and the next step;
 * `invalid_argument` for a path that can't be one
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  if (typeof path !== "string") {
    throw new MllmError("invalid_argument", `the path of a model must be a string, not ${typeof path}`, {
      next: "Give a Hugging Face folder or a GGUF file",
    });
  }
  if (path === "" || path.includes("\0")) {
    throw new MllmError("invalid_argument", "the path of a model is empty or has a NUL");
  }
  if (!fileExists(path)) {
    throw new MllmError("not_found", "no model there", {
      file: path,
      next: "Check the path: a model is a folder with config.json and safetensors, or a .gguf file",
    });
  }
  if (statFile(path).isDirectory) return await openDirectory(path.replace(/(?<=.)[/\\]+$/, ""));
  const name = path.slice(path.search(/[^/\\]*$/));
  const folder = path.slice(0, path.length - name.length) || ".";
  if (
    /\.safetensors(\.index\.json)?$/.test(name) ||
    /^(config|tokenizer|tokenizer_config|generation_config)\.json$/.test(name)
  ) {
    throw new MllmError("invalid_file", "one file of a model folder, not a model", {
      file: path,
      next: `Give the folder, ${JSON.stringify(folder)}: config.json and tokenizer.json belong to the model too`,
    });
  }
  // Whatever its name is, it has to be GGUF; the reader recognises what it is instead.
  return await openGgufCheckpoint(path);
}

async function openDirectory(path: string): Promise<Checkpoint> {
  if (fileExists(`${path}/config.json`)) return await openHfFolder(path);
  const names = listNames(path);
  const ggufs = names.filter((name) => name.endsWith(".gguf") && !/-(?!00001)\d{5}-of-\d{5}\.gguf$/.test(name));
  if (ggufs.length === 1) return await openGgufCheckpoint(`${path}/${ggufs[0]}`);
  let next = "A model folder has config.json, tokenizer.json and *.safetensors; or give a .gguf file";
  if (ggufs.length > 1) next = `Name one of its GGUF files: ${ggufs.slice(0, 8).join(", ")}`;
  else if (names.includes("adapter_config.json")) next = "This is a LoRA adapter: merge it into its base model first";
  else if (names.some((name) => name.endsWith(".safetensors"))) {
    next = "Download the whole folder: config.json and tokenizer.json belong to the model too";
  } else if (names.some((name) => /\.(bin|pt|pth)$/.test(name))) {
    next = "It holds PyTorch pickles only: get the safetensors or GGUF form of the model";
  }
  throw new MllmError("not_found", "no model in this folder: there is no config.json", { file: path, next });
}

/** Names of the entries of a directory, sorted; at most 10,000. */
export function listNames(path: string): string[] {
  const names: string[] = [];
  try {
    for (const entry of Deno.readDirSync(path)) {
      names.push(entry.name);
      if (names.length >= 10_000) break;
    }
  } catch (error) {
    throw new MllmError("io", "can't list the folder", {
      file: path,
      next: "Check that this user may read it (and Deno's --allow-read)",
      cause: error,
    });
  }
  return names.sort();
}
