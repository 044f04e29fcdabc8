import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { MllmError } from "@mllm/core";

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
 * their regular expressions. Its vocabulary, merges and decoder are not used: merging by text pairs takes it 1.5 s to load
 * a 150,000 token vocabulary, and decoding by strings can't give the bytes of one token.
 *
 * @throws MllmError `unsupported` for a stage it doesn't know, `invalid_file` for a broken one
 */
export function buildStages({ normalizer, preTokenizer, postProcessor }: TextStages): TextFunctions {
  for (const [name, stage] of Object.entries({ normalizer, preTokenizer, postProcessor })) {
    if (stage === undefined || stage === null) continue;
    if (typeof stage !== "object" || typeof (stage as { type?: unknown }).type !== "string") {
      throw new MllmError("invalid_file", `tokenizer: the ${name} has no type`);
    }
  }
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
      normalize: normalize === null ? (text) => text : (text) => normalize.normalize(text),
      split: split === null
        ? (text) => [text]
        : (text, index) => split.pre_tokenize(text, { section_index: index }) as string[],
      prefix: around.slice(0, at),
      suffix: around.slice(at + 1),
    };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new MllmError(
      /^Unknown/.test(message) ? "unsupported" : "invalid_file",
      `tokenizer: ${message}`,
      { cause: error },
    );
  }
}
