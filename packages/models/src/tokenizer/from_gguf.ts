import { MllmError, type TextList } from "@mllm/core";
import type { AddedToken } from "./added_tokens.ts";
import { buildStages } from "./library.ts";
import { broken, readMerges, textList, tokenIdMax } from "./read_merges.ts";
import { preTokenizerNames, preTokenizerRules } from "./pre_tokenizers.ts";
import { SpmMerges } from "./spm_merges.ts";
import { byteTokenIds } from "./token_bytes.ts";
import { VocabularyTokenizer } from "./tokenizer.ts";
import { Vocabulary } from "./vocabulary.ts";
import { WordEncoder } from "./word_encoder.ts";

/**
 * GGUF metadata by key, as `GgufFile.metadata` has it; integers may be bigints, lists of texts are a TextList, other
 * arrays plain or typed.
 */
export type GgufMetadata = ReadonlyMap<string, unknown>;

/** Values of `tokenizer.ggml.token_type` (llama.cpp's gguf-py, constants.py). */
const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

interface Tokens {
  vocabulary: Vocabulary;
  texts: TextList;
  /** Types by id, all normal where the file doesn't say. */
  types: Int32Array;
  special: Set<number>;
  added: AddedToken[];
}

/**
 * Makes a tokenizer from GGUF metadata: `gpt2` (byte-level BPE, `tokenizer.ggml.pre` says how words are split) and
 * `llama` (sentencepiece BPE by scores, with byte fallback).
 *
 * @throws MllmError `invalid_file` for broken data, `unsupported` for another model or pre-tokenizer, by name
 */
export function tokenizerFromGguf(metadata: GgufMetadata): VocabularyTokenizer {
  const model = metadata.get("tokenizer.ggml.model");
  if (model === "gpt2") return bytePair(metadata);
  if (model === "llama") return sentencePiece(metadata);
  if (model === undefined) throw broken("the GGUF file has no tokenizer.ggml.model");
  throw new MllmError("unsupported", `tokenizer.ggml.model ${JSON.stringify(String(model))} is not supported`, {
    next: "Supported are gpt2 and llama.",
  });
}

function bytePair(metadata: GgufMetadata): VocabularyTokenizer {
  const pre = metadata.get("tokenizer.ggml.pre") ?? "default";
  const rules = typeof pre === "string" ? preTokenizerRules(pre) : undefined;
  if (rules === undefined) {
    throw new MllmError("unsupported", `tokenizer.ggml.pre ${JSON.stringify(String(pre))} is not supported`, {
      next: `Supported are ${preTokenizerNames().join(", ")}.`,
    });
  }
  const tokens = readTokens(metadata);
  const { vocabulary, special, added } = tokens;
  const stages = buildStages({ ...rules, postProcessor: null });
  return new VocabularyTokenizer({
    vocabulary,
    added,
    ...stages,
    words: new WordEncoder({
      vocabulary,
      special,
      merges: readMerges(metadata.get("tokenizer.ggml.merges"), vocabulary, special),
      ignoreMerges: rules.ignoreMerges,
      fuseUnknown: false,
    }),
    bytes: { kind: "byte-level" },
    leadingSpaces: 0,
    ...specialIds(metadata, vocabulary.length, { bos: rules.addBos, eos: false }),
  });
}

function sentencePiece(metadata: GgufMetadata): VocabularyTokenizer {
  const { vocabulary, texts, types, special, added } = readTokens(metadata);
  const scores = metadata.get("tokenizer.ggml.scores");
  if (!Array.isArray(scores) && !ArrayBuffer.isView(scores)) throw broken("the GGUF file has no tokenizer.ggml.scores");
  const list = scores as unknown as ArrayLike<unknown>;
  if (list.length !== vocabulary.length) {
    throw broken(`the GGUF file has ${vocabulary.length} tokens but ${list.length} scores`);
  }
  for (let i = 0; i < list.length; i++) {
    if (typeof list[i] !== "number" || Number.isNaN(list[i])) throw broken(`the score of token ${i} is not a number`);
  }
  const prefix = flag(metadata, "tokenizer.ggml.add_space_prefix", true);
  const underscore = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const stages = buildStages({
    normalizer: prefix
      ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, underscore] }
      : underscore,
    preTokenizer: null,
    postProcessor: null,
  });
  const normal = new Vocabulary(texts, (id) => types[id] === tokenType.normal && vocabulary.isFound(id));
  return new VocabularyTokenizer({
    vocabulary,
    added,
    ...stages,
    words: new WordEncoder({
      vocabulary: normal,
      special,
      merges: new SpmMerges(normal, scores as unknown as ArrayLike<number>),
      ignoreMerges: false,
      byteIds: byteTokenIds(vocabulary),
      unknownId: tokenIndex(metadata, "unknown", vocabulary.length),
      fuseUnknown: true,
    }),
    bytes: { kind: "pieces", replacements: [["▁", " "]], byteFallback: true },
    leadingSpaces: prefix ? 1 : 0,
    ...specialIds(metadata, vocabulary.length, { bos: true, eos: false }),
  });
}

function readTokens(metadata: GgufMetadata): Tokens {
  const texts = textList(metadata.get("tokenizer.ggml.tokens"), "token");
  if (texts === undefined || texts.length === 0) throw broken("the GGUF file has no tokenizer.ggml.tokens");
  if (texts.length > tokenIdMax) throw broken(`${texts.length} tokens are too many`);
  const list = metadata.get("tokenizer.ggml.token_type") as ArrayLike<unknown> | undefined;
  if (list !== undefined && list?.length !== texts.length) {
    throw broken(`the GGUF file has ${texts.length} tokens but another number of token types`);
  }
  const types = new Int32Array(texts.length).fill(tokenType.normal);
  if (list !== undefined) { for (let id = 0; id < types.length; id++) types[id] = Number(list[id]); }
  const tokens: Tokens = { vocabulary: new Vocabulary(texts), texts, types, special: new Set(), added: [] };
  for (let id = 0; id < types.length; id++) {
    const special = types[id] === tokenType.control || types[id] === tokenType.unknown;
    if (!(special || types[id] === tokenType.userDefined) || !tokens.vocabulary.isFound(id)) continue;
    if (special) tokens.special.add(id);
    const rest = { normalized: false, lstrip: false, rstrip: false, singleWord: false };
    tokens.added.push({ id, content: texts.at(id)!, special, ...rest });
  }
  return tokens;
}

function flag(metadata: GgufMetadata, key: string, otherwise: boolean): boolean {
  const value = metadata.get(key);
  if (value === undefined) return otherwise;
  if (typeof value !== "boolean") throw broken(`${key} is not true or false`);
  return value;
}

function tokenIndex(metadata: GgufMetadata, name: string, count: number): number | undefined {
  const key = `tokenizer.ggml.${name}_token_id`;
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  const id = Number(value);
  // Converters write 2^32 - 1 for "none".
  if (id === 0xffffffff) return undefined;
  if (!Number.isInteger(id) || id < 0 || id >= count) throw broken(`${key} is ${value}, beyond ${count} tokens`);
  return id;
}

function specialIds(metadata: GgufMetadata, count: number, byDefault: { bos: boolean; eos: boolean }) {
  const index = (name: string) => tokenIndex(metadata, name, count);
  const bosId = index("bos");
  const eosId = index("eos");
  const addBos = flag(metadata, "tokenizer.ggml.add_bos_token", byDefault.bos);
  const addEos = flag(metadata, "tokenizer.ggml.add_eos_token", byDefault.eos);
  return {
    bosId,
    eosIds: [eosId, index("eot"), index("eom")].filter((id) => id !== undefined),
    prefixIds: addBos && bosId !== undefined ? [bosId] : [],
    suffixIds: addEos && eosId !== undefined ? [eosId] : [],
  };
}
