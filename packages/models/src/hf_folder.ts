import { fileExists, type Json, MllmError, openSafetensors, readJsonObject, readWholeFile } from "@mllm/core";
import { type Checkpoint, listNames } from "./checkpoint.ts";
import { ConfigReader, readInts, readString } from "./config_reader.ts";
import { modelFamily } from "./families.ts";
import { normalizeConfig } from "./hf_config.ts";

const configBytesMax = 10_000_000;
const tokenizerBytesMax = 128_000_000;
const templateBytesMax = 4_000_000;

type JsonObject = { [key: string]: Json };

/** Opens a Hugging Face folder; see openCheckpoint. */
export async function openHfFolder(path: string): Promise<Checkpoint> {
  const configFile = `${path}/config.json`;
  const raw = readJsonObject(configFile, configBytesMax);
  const reader = new ConfigReader(raw, configFile);
  modelFamily(readString(reader, "model_type"), configFile);
  const config = normalizeConfig(raw, configFile);
  const generationConfig = readOptional(`${path}/generation_config.json`, configBytesMax) ?? {};
  const weights = await openSafetensors(findWeights(path));
  const tokenizerFile = `${path}/tokenizer.json`;
  if (!fileExists(tokenizerFile)) {
    throw new MllmError("not_found", "the model folder has no tokenizer.json", {
      file: tokenizerFile,
      next: "Download the whole folder; a folder with only tokenizer.model or vocab.json: use a GGUF file of the model",
    });
  }
  const tokenizer = readJsonObject(tokenizerFile, tokenizerBytesMax, { valuesMax: 8_000_000 });
  const tokenizerConfigFile = `${path}/tokenizer_config.json`;
  const tokenizerConfig = readOptional(tokenizerConfigFile, configBytesMax);
  const ignored: string[] = [];
  return {
    path,
    format: "huggingface",
    config,
    configFile,
    generationConfig,
    weights: weights.tensors,
    tokenizer: { kind: "json", tokenizer, config: tokenizerConfig },
    chatTemplate: readTemplate(path, tokenizerConfig, tokenizerConfigFile, ignored),
    eosIds: readInts(reader, "eos_token_id"),
    ignored,
  };
}

function readOptional(path: string, bytesMax: number): JsonObject | undefined {
  return fileExists(path) ? readJsonObject(path, bytesMax) : undefined;
}

/** model.safetensors, else the index, else the only safetensors file: the order of Hugging Face's loader. */
function findWeights(path: string): string {
  for (const name of ["model.safetensors", "model.safetensors.index.json"]) {
    if (fileExists(`${path}/${name}`)) return `${path}/${name}`;
  }
  const names = listNames(path);
  const single = names.filter((name) => name.endsWith(".safetensors"));
  if (single.length === 1) return `${path}/${single[0]}`;
  let next = "Download the whole folder";
  if (single.length > 1) next = "model.safetensors.index.json is missing: download the whole folder";
  else if (names.some((name) => /\.(bin|pt|pth)$/.test(name))) {
    next = "It holds PyTorch pickles only: get the safetensors or GGUF form of the model";
  }
  throw new MllmError("not_found", "the model folder has no weights (model.safetensors)", { file: path, next });
}

/** chat_template.jinja, else tokenizer_config.chat_template: a string, or a list of {name, template}. */
function readTemplate(
  path: string,
  config: JsonObject | undefined,
  file: string,
  ignored: string[],
): string | undefined {
  const jinja = `${path}/chat_template.jinja`;
  const inConfig = config?.chat_template;
  if (fileExists(jinja)) {
    if (inConfig !== undefined) ignored.push("tokenizer_config.json: chat_template");
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(readWholeFile(jinja, templateBytesMax));
    } catch (error) {
      if (error instanceof MllmError) throw error;
      throw new MllmError("invalid_file", "the chat template is not UTF-8 text", { file: jinja, cause: error });
    }
  }
  if (inConfig === undefined || inConfig === null) return undefined;
  if (typeof inConfig === "string") return inConfig;
  const bad = (): never => {
    throw new MllmError("invalid_file", "chat_template is neither a string nor a list of {name, template}", {
      file,
      next: "Correct the file or download it again",
    });
  };
  if (!Array.isArray(inConfig)) return bad();
  const named = new Map<string, string>();
  for (const item of inConfig) {
    if (item === null || typeof item !== "object" || Array.isArray(item)) return bad();
    const { name, template } = item;
    if (typeof name !== "string" || typeof template !== "string") return bad();
    named.set(name, template);
  }
  const chosen = named.has("default") ? "default" : named.size === 1 ? [...named.keys()][0] : undefined;
  for (const name of named.keys()) {
    if (name !== chosen) ignored.push(`tokenizer_config.json: chat_template ${JSON.stringify(name.slice(0, 100))}`);
  }
  return chosen === undefined ? undefined : named.get(chosen);
}
