import {
  encodeGguf,
  encodeSafetensors,
  MllmError,
  openSafetensors,
  parseJson,
  readGguf,
  readSafetensors,
} from "@mllm/core";
import { openCheckpoint } from "../../packages/models/src/checkpoint.ts";
import { inspectModel } from "../../packages/models/src/load_model.ts";
import { ChatTemplate } from "../../packages/models/src/template/chat_template.ts";
import { createTokenizer } from "../../packages/models/src/tokenizer/create_tokenizer.ts";
import type { Tokenizer } from "../../packages/models/src/tokenizer/tokenizer.ts";
import type { Random } from "../random_model/random.ts";
import { ggufFields, hostileMetadata, metadataFile, mutateGguf } from "./mutate_gguf.ts";
import { mutateBytes } from "./mutate_bytes.ts";
import { mutateJson } from "./mutate_json.ts";
import { mutateTemplate } from "./mutate_template.ts";
import { bpeMetadata, folder, ggufFiles, ggufModels, spmMetadata, templates, tokenizerJsons } from "./seeds.ts";

/** A parser under test. */
export interface Target {
  name: string;
  /** A mutated input; depends on nothing but `random`. */
  make(random: Random): Uint8Array;
  /** Parses it; throws what the parser throws. `scratch` is a directory of its own. */
  run(input: Uint8Array, scratch: string): unknown;
}

const utf8 = new TextEncoder();
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.below(list.length)];
}

/** A JSON document changed by structure (three of four times) or by bytes. */
function makeJson(random: Random, seeds: readonly string[]): Uint8Array {
  const seed = pick(random, seeds);
  if (random.below(4) > 0) return utf8.encode(mutateJson(random, seed));
  return mutateBytes(random, utf8.encode(seed), utf8.encode(pick(random, seeds)));
}

const safetensorsSeeds = [
  folder["model.safetensors"],
  encodeSafetensors([
    { name: "a", dtype: "bf16", shape: [2, 3], data: new Uint16Array(6) },
    { name: "b", dtype: "i64", shape: [], data: new BigInt64Array(1) },
    { name: "c", dtype: "u8", shape: [0, 7], data: new Uint8Array(0) },
    { name: "d", dtype: "f16", shape: [1, 1, 4], data: new Uint16Array(4) },
  ]),
];

function makeSafetensors(random: Random): Uint8Array {
  const file = pick(random, safetensorsSeeds);
  if (random.below(3) === 0) return mutateBytes(random, file, pick(random, safetensorsSeeds));
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = utf8.encode(mutateJson(random, text(file.subarray(8, 8 + length))));
  const out = new Uint8Array(8 + header.length + file.length - 8 - length);
  new DataView(out.buffer).setBigUint64(0, BigInt(header.length), true);
  out.set(header, 8);
  out.set(file.subarray(8 + length), 8 + header.length);
  return out;
}

const ggufSeeds = ggufFiles.map((file) => ({ file, fields: ggufFields(file) }));

function makeGguf(random: Random): Uint8Array {
  const { file, fields } = pick(random, ggufSeeds);
  return random.below(3) === 0
    ? mutateBytes(random, file, pick(random, ggufSeeds).file)
    : mutateGguf(random, file, fields);
}

function makeGgufModel(random: Random): Uint8Array {
  const model = pick(random, ggufModels);
  if (random.below(4) === 0) return makeGguf(random);
  return encodeGguf({ ...model, metadata: hostileMetadata(random, model.metadata) });
}

function makeGgufTokenizer(random: Random): Uint8Array {
  const metadata = pick(random, [bpeMetadata, spmMetadata]);
  const file = metadataFile(random.below(4) > 0 ? hostileMetadata(random, metadata) : metadata);
  return random.below(2) === 0 ? file : mutateGguf(random, file, ggufFields(file));
}

const samples = ["", "Hello the world 123\n\n  ", "<|im_start|>user\nhé 🎉漢字<|im_end|>", "\ud800 \0</s>"];

function useTokenizer(tokenizer: Tokenizer): void {
  for (const sample of samples) {
    const ids = tokenizer.encode(sample, { addSpecial: true });
    if (!ids.every((id) => Number.isInteger(id) && id >= 0)) throw new TypeError(`encode gave ${ids}`);
    tokenizer.decode(ids);
  }
  for (const id of [0, 5, tokenizer.vocabSize - 1, tokenizer.vocabSize]) {
    tokenizer.tokenBytes(id);
    tokenizer.isSpecial(id);
  }
}

const messages = [
  { role: "system", content: "Be short." },
  { role: "user", content: "Hi 🎉" },
  { role: "assistant", content: "Hello." },
  { role: "user", content: "Bye" },
];
const tools = [{
  type: "function",
  function: { name: "f", parameters: { type: "object", properties: { a: { type: "string" } } } },
}];

function useTemplate(source: string): string {
  return new ChatTemplate(source).render({
    messages,
    tools,
    addGenerationPrompt: true,
    bosToken: "<s>",
    eosToken: "</s>",
  });
}

/** A model folder in `scratch` with one file replaced. */
function writeFolder(scratch: string, name: string, input: Uint8Array): void {
  for (const [file, bytes] of Object.entries(folder)) {
    if (file !== name) writeOnce(`${scratch}/${file}`, bytes);
  }
  Deno.writeFileSync(`${scratch}/${name}`, input);
}

const written = new Set<string>();

function writeOnce(path: string, bytes: Uint8Array): void {
  if (written.has(path)) return;
  Deno.writeFileSync(path, bytes);
  written.add(path);
}

function folderTarget(name: string): Target {
  return {
    name,
    make: (random) => makeJson(random, [text(folder[name])]),
    async run(input, scratch) {
      writeFolder(scratch, name, input);
      const { checkpoint } = await inspectModel(scratch);
      if (name !== "tokenizer_config.json") return;
      useTokenizer(createTokenizer(checkpoint.tokenizer));
      if (checkpoint.chatTemplate !== undefined) useTemplate(checkpoint.chatTemplate);
    },
  };
}

const index = JSON.stringify({ metadata: { total_size: 4 }, weight_map: { a: "1.safetensors", b: "2.safetensors" } });

const assorted = String.raw`{"a":[1,-2.5e3,true,null,"x\n\u00e9\ud83c\udf89\"\\/"],"ü":{"":{}},"e":[[],[{}]]}`;

/** Every parser of bytes from outside. */
export const targets: readonly Target[] = [
  { name: "safetensors", make: makeSafetensors, run: (input) => readSafetensors(input, "input.safetensors") },
  {
    name: "safetensors-index",
    make: (random) => makeJson(random, [index]),
    run(input, scratch) {
      writeOnce(
        `${scratch}/1.safetensors`,
        encodeSafetensors([{ name: "a", dtype: "u8", shape: [1], data: new Uint8Array(1) }]),
      );
      writeOnce(
        `${scratch}/2.safetensors`,
        encodeSafetensors([{ name: "b", dtype: "u8", shape: [1], data: new Uint8Array(1) }]),
      );
      Deno.writeFileSync(`${scratch}/model.safetensors.index.json`, input);
      return openSafetensors(`${scratch}/model.safetensors.index.json`);
    },
  },
  { name: "gguf", make: makeGguf, run: (input) => readGguf(input, "input.gguf") },
  {
    name: "gguf-model",
    make: makeGgufModel,
    async run(input, scratch) {
      const path = `${scratch}/model.gguf`;
      Deno.writeFileSync(path, input);
      await openCheckpoint(path);
      await inspectModel(path);
    },
  },
  {
    name: "json",
    make: (random) => makeJson(random, [index, assorted]),
    run(input) {
      parseJson(input, "input.json");
      parseJson(input, "input.json", { uniqueKeys: true });
    },
  },
  folderTarget("config.json"),
  folderTarget("generation_config.json"),
  folderTarget("tokenizer_config.json"),
  {
    name: "tokenizer.json",
    make: (random) => makeJson(random, tokenizerJsons),
    run: (input) =>
      useTokenizer(
        createTokenizer({ kind: "json", tokenizer: parseJson(input, "tokenizer.json") as object, config: undefined }),
      ),
  },
  {
    name: "gguf-tokenizer",
    make: makeGgufTokenizer,
    run: (input) => useTokenizer(createTokenizer({ kind: "gguf", metadata: readGguf(input, "input.gguf").metadata })),
  },
  {
    name: "template",
    make: (random) => mutateTemplate(random, pick(random, templates), pick(random, templates)),
    run: (input) => useTemplate(text(input)),
  },
];

/** Whether a parser may end so: in an MllmError that says something, other than "a bug in this project". */
export function isCleanRefusal(error: unknown): boolean {
  return error instanceof MllmError && error.code !== "internal" && error.message.length > 0 &&
    error.message.length < 4000 && !/[\n\r]/.test(error.message);
}
