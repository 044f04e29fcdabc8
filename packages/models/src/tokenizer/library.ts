import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { MllmError } from "@mllm/core";
import { checkPattern, useGguf } from "./check_pattern.ts";

/** The parts of tokenizer.json that the library runs for us, in that file's own form. */
export interface TextStages {
  normalizer: unknown;
  preTokenizer: unknown;
  postProcessor: unknown;
}

/** Those parts, ready to run. */
export interface TextFunctions {
  normalize: (text: string) => string;
  split: (text: string, index: number) => readonly string[];
  /** Token texts that the post-processor puts before and behind a text. */
  prefix: string[];
  suffix: string[];
}

/**
 * Builds normaliser, pre-tokenizer and post-processor with the npm package `@huggingface/tokenizers`, which translates
 * their regular expressions. Its vocabulary, merges and decoder are not used: they know no scores (GGUF), no bytes of a
 * single token (streaming) and no text that must not become a control token.
 *
 * @throws MllmError `unsupported` for a stage it doesn't know, `invalid_file` for a broken one
 */
export function buildStages({ normalizer, preTokenizer, postProcessor }: TextStages): TextFunctions {
  for (const stage of [normalizer, preTokenizer, postProcessor]) checkStage(stage);
  checkBehavior(preTokenizer, removesSpaces(normalizer));
  try {
    const library = new LibraryTokenizer(
      {
        normalizer: normalizer ?? null,
        pre_tokenizer: preTokenizer ?? null,
        post_processor: postProcessor ?? null,
        decoder: null,
        added_tokens: [],
        model: { type: "BPE", vocab: {}, merges: [] },
      },
      {},
    );
    const { normalizer: normalize, pre_tokenizer: split, post_processor: process } = library;
    const text = "\u{f0000}";
    const around = process === null ? [text] : process.post_process([text], null, true).tokens ?? [text];
    const at = around.indexOf(text);
    if (at < 0) throw new Error("the post-processor drops the text");
    return {
      normalize: normalize === null ? (text) => text : guarded((text: string) => normalize.normalize(text)),
      split: split === null
        ? (text) => [text]
        : guarded((text: string, index: number) => split.pre_tokenize(text, { section_index: index }) as string[]),
      prefix: around.slice(0, at),
      suffix: around.slice(at + 1),
    };
  } catch (error) {
    throw libraryError(error);
  }
}

function libraryError(error: unknown): MllmError {
  if (error instanceof MllmError) return error;
  const message = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ").slice(0, 300);
  // An expression that JavaScript does not know may be right in the dialect that it was written for.
  const isExpression = /^Invalid regular expression/.test(message);
  const code = isExpression || /^Unknown/.test(message) ? "unsupported" : "invalid_file";
  return new MllmError(code, `tokenizer: ${message}`, { ...(isExpression ? { next: useGguf } : {}), cause: error });
}

/** The library finds some broken settings only when it meets a text. */
function guarded<A extends unknown[], R>(run: (...args: A) => R): (...args: A) => R {
  return (...args) => {
    try {
      return run(...args);
    } catch (error) {
      throw libraryError(error);
    }
  };
}

type Stage = Record<string, unknown>;

const nestedLists = ["normalizers", "pretokenizers", "processors"];
const depthMax = 16;

/** Checks what the library takes on trust: types, expressions, lengths; it would print warnings, or run for ever. */
function checkStage(value: unknown, depth = 0): void {
  if (value === undefined || value === null) return;
  const stage = value as Stage;
  if (typeof value !== "object" || typeof stage.type !== "string" || depth > depthMax) {
    throw new MllmError("invalid_file", "tokenizer: a normaliser, pre-tokenizer or post-processor has no type");
  }
  const fail = (what: string) => new MllmError("invalid_file", `tokenizer: ${stage.type} has ${what}`);
  const { pattern, content, length } = stage;
  if (pattern !== undefined || stage.type === "Split" || stage.type === "Replace") {
    const text = (pattern as Stage | null)?.Regex ?? (pattern as Stage | null)?.String;
    if (typeof text !== "string") throw fail("no pattern");
    if ((pattern as Stage).Regex !== undefined) checkPattern(text);
  }
  if (content !== undefined && typeof content !== "string") throw fail("a content that is no text");
  if (stage.type === "Prepend" && typeof stage.prepend !== "string") throw fail("nothing to prepend");
  if (stage.type === "FixedLength" && !(Number.isInteger(length) && Number(length) > 0)) throw fail("no length");
  for (const name of nestedLists) {
    const list = stage[name];
    if (list === undefined) continue;
    if (!Array.isArray(list)) throw fail(`${name} that are no list`);
    for (const nested of list) checkStage(nested, depth + 1);
  }
}

const isSpace = (stage: Stage) => (stage.pattern as Stage | undefined)?.String === " ";

/** Whether a normaliser ends by replacing every space with something else. */
function removesSpaces(value: unknown): boolean {
  const stage = value as Stage | null | undefined;
  if (Array.isArray(stage?.normalizers)) return removesSpaces(stage.normalizers.at(-1));
  return stage?.type === "Replace" && isSpace(stage) && !String(stage.content ?? "").includes(" ");
}

/** The library treats every Split as `Isolated` or `Removed`. Another matters unless it splits at spaces that are gone. */
function checkBehavior(value: unknown, withoutSpaces: boolean): void {
  const stage = value as Stage | null | undefined;
  if (
    stage?.type === "Split" && stage.behavior !== undefined && !/^(isolated|removed)$/i.test(String(stage.behavior)) &&
    !(withoutSpaces && isSpace(stage))
  ) {
    throw new MllmError("unsupported", `tokenizer: splitting by ${JSON.stringify(stage.behavior)} is not supported`);
  }
  if (Array.isArray(stage?.pretokenizers)) {
    for (const nested of stage.pretokenizers) checkBehavior(nested, withoutSpaces);
  }
}
