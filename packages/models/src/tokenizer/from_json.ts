import { MllmError, TextList } from "@mllm/core";
import type { AddedToken } from "./added_tokens.ts";
import { buildStages } from "./library.ts";
import { broken, readMerges, tokenIdMax } from "./read_merges.ts";
import { type ByteRules, byteTokenIds } from "./token_bytes.ts";
import { VocabularyTokenizer } from "./tokenizer.ts";
import { Vocabulary } from "./vocabulary.ts";
import { WordEncoder } from "./word_encoder.ts";

type Json = Record<string, unknown>;

function object(value: unknown, name: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw broken(`${name} is not an object`);
  return value as Json;
}

/**
 * Makes a tokenizer from the contents of tokenizer.json (Hugging Face `tokenizers`, BPE models with or without byte
 * level or byte fallback) and, where there is one, tokenizer_config.json for the names of BOS and EOS.
 *
 * @throws MllmError `invalid_file` for broken data, `unsupported` for another kind of model or decoder
 */
export function tokenizerFromJson(tokenizer: unknown, config?: unknown): VocabularyTokenizer {
  const root = object(tokenizer, "tokenizer.json");
  const model = object(root.model, "model");
  checkModel(model);
  const texts: (string | undefined)[] = [];
  readTexts(object(model.vocab, "model.vocab"), texts);
  const added = readAddedTokens(root.added_tokens, texts);
  const vocabulary = new Vocabulary(TextList.from(texts.map((text) => text ?? "")));
  for (const { id } of added) vocabulary.prefer(id);
  const stages = buildStages({
    normalizer: root.normalizer,
    preTokenizer: root.pre_tokenizer,
    postProcessor: root.post_processor,
  });
  const special = new Set(added.filter((token) => token.special).map((token) => token.id));
  const unknown = namedToken(model.unk_token, vocabulary);
  const byteFallback = model.byte_fallback === true;
  const idOf = (text: unknown) => {
    const id = typeof text === "string" ? vocabulary.id(text) : -1;
    if (id < 0) throw broken(`the post-processor names ${JSON.stringify(text)}, which is no token`);
    return id;
  };
  const names = object(config ?? {}, "tokenizer_config.json");
  const eos = namedToken(names.eos_token, vocabulary);
  return new VocabularyTokenizer({
    vocabulary,
    added,
    normalize: stages.normalize,
    split: stages.split,
    words: new WordEncoder({
      vocabulary,
      special,
      merges: readMerges(model.merges, vocabulary, special),
      ignoreMerges: model.ignore_merges === true,
      byteIds: byteFallback ? byteTokenIds(vocabulary) : undefined,
      unknownId: unknown,
      fuseUnknown: model.fuse_unk === true,
    }),
    ...readDecoder(root.decoder),
    prefixIds: stages.prefix.map(idOf),
    suffixIds: stages.suffix.map(idOf),
    bosId: namedToken(names.bos_token, vocabulary),
    eosIds: eos === undefined ? [] : [eos],
  });
}

function checkModel(model: Json): void {
  const type = model.type ?? (model.merges === undefined ? undefined : "BPE");
  if (type !== "BPE") {
    throw new MllmError("unsupported", `tokenizer: a model of type ${JSON.stringify(type)} is not supported, only BPE`);
  }
  for (const field of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[field] !== undefined && model[field] !== null && model[field] !== "") {
      throw new MllmError("unsupported", `tokenizer: model.${field} is not supported`);
    }
  }
}

function checkId(id: unknown, what: string): number {
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id > tokenIdMax) {
    throw broken(`${what} has the id ${JSON.stringify(id)}`);
  }
  return id;
}

function readTexts(vocab: Json, texts: (string | undefined)[]): void {
  for (const text in vocab) {
    const id = checkId(vocab[text], JSON.stringify(text));
    if (texts[id] !== undefined) {
      throw broken(`${JSON.stringify(texts[id])} and ${JSON.stringify(text)} share the id ${id}`);
    }
    // Growing by assignment keeps the array dense only if ids come in order, so holes are filled as they appear.
    while (texts.length < id) texts.push(undefined);
    texts[id] = text;
  }
}

function readAddedTokens(value: unknown, texts: (string | undefined)[]): AddedToken[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw broken("added_tokens is not a list");
  return Array.from(value, (entry, index) => {
    const token = object(entry, `added_tokens[${index}]`);
    const content = token.content;
    if (typeof content !== "string" || content === "") throw broken(`added_tokens[${index}] has no content`);
    const id = checkId(token.id, `added_tokens[${index}]`);
    if (texts[id] !== undefined && texts[id] !== content) {
      throw broken(`${JSON.stringify(texts[id])} and ${JSON.stringify(content)} share the id ${id}`);
    }
    while (texts.length < id) texts.push(undefined);
    texts[id] = content;
    const special = token.special === true;
    return {
      id,
      content,
      special,
      normalized: typeof token.normalized === "boolean" ? token.normalized : !special,
      lstrip: token.lstrip === true,
      rstrip: token.rstrip === true,
      singleWord: token.single_word === true,
    };
  });
}

function namedToken(value: unknown, vocabulary: Vocabulary): number | undefined {
  const text = typeof value === "object" && value !== null ? (value as Json).content : value;
  const id = typeof text === "string" ? vocabulary.id(text) : -1;
  return id < 0 ? undefined : id;
}

/** Reads what the decoder says of bytes; only those that work token by token, but for a space at the very start. */
function readDecoder(value: unknown): { bytes: ByteRules; leadingSpaces: number } {
  if (value === null || value === undefined) {
    return { bytes: { kind: "pieces", replacements: [], byteFallback: false }, leadingSpaces: 0 };
  }
  const decoder = object(value, "decoder");
  const steps = decoder.type === "Sequence" ? decoder.decoders : [decoder];
  if (!Array.isArray(steps)) throw broken("decoder.decoders is not a list");
  const replacements: [string, string][] = [];
  let byteFallback = false;
  let byteLevel = false;
  let leadingSpaces = 0;
  for (const entry of steps) {
    const step = object(entry, "decoder");
    if (step.type === "ByteLevel") byteLevel = true;
    else if (step.type === "ByteFallback") byteFallback = true;
    else if (step.type === "Replace") replacements.push(readReplacement(step));
    else if (step.type === "Metaspace") {
      replacements.push([typeof step.replacement === "string" ? step.replacement : "▁", " "]);
      const scheme = step.prepend_scheme ?? (step.add_prefix_space === false ? "never" : "always");
      if (scheme !== "never") leadingSpaces = 1;
    } else if (step.type === "Strip" && step.content === " " && !step.stop && Number(step.start) <= 1) {
      leadingSpaces = Number(step.start);
    } else if (step.type !== "Fuse") {
      throw new MllmError("unsupported", `tokenizer: a decoder of type ${JSON.stringify(step.type)} is not supported`);
    }
  }
  if (byteLevel && replacements.length === 0) return { bytes: { kind: "byte-level" }, leadingSpaces };
  if (byteLevel) {
    throw new MllmError("unsupported", "tokenizer: a ByteLevel decoder with replacements is not supported");
  }
  return { bytes: { kind: "pieces", replacements, byteFallback }, leadingSpaces };
}

function readReplacement(step: Json): [string, string] {
  const from = object(step.pattern, "decoder.pattern").String;
  if (typeof from !== "string" || from === "" || typeof step.content !== "string") {
    throw new MllmError("unsupported", "tokenizer: a decoder may only replace one text by another");
  }
  return [from, step.content];
}
