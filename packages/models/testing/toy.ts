import { createTokenizer } from "../src/tokenizer/create_tokenizer.ts";
import type { Tokenizer } from "../src/tokenizer/tokenizer.ts";

/** Contents of the toy tokenizer.json in testdata: a self-made byte-level BPE with Qwen2's pre-tokenizer, for tests. */
// deno-lint-ignore no-explicit-any
export function toyJson(): any {
  return JSON.parse(Deno.readTextFileSync(new URL("../testdata/toy/tokenizer.json", import.meta.url)));
}

/** The toy tokenizer. */
export function toyTokenizer(): Tokenizer {
  return createTokenizer({ kind: "json", tokenizer: toyJson(), config: { eos_token: "<|im_end|>" } });
}

/** GGUF metadata of the same vocabulary. */
export function toyGguf(changes: Record<string, unknown> = {}): Map<string, unknown> {
  const { model, added_tokens } = toyJson();
  const tokens: string[] = [];
  for (const [text, id] of Object.entries(model.vocab)) tokens[id as number] = text;
  const types = new Int32Array(tokens.length + added_tokens.length).fill(1);
  for (const { id, content } of added_tokens) {
    tokens[id] = content;
    types[id] = 3;
  }
  return new Map(Object.entries({
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": types,
    "tokenizer.ggml.merges": model.merges.map((pair: string[]) => pair.join(" ")),
    "tokenizer.ggml.eos_token_id": BigInt(tokens.length - 1),
    ...changes,
  }));
}

/** GGUF metadata of a tiny sentencepiece vocabulary: three control tokens, 256 bytes, and the given pieces with scores. */
export function tinySpm(pieces: Record<string, number>, changes: Record<string, unknown> = {}): Map<string, unknown> {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...Object.keys(pieces)];
  return new Map(Object.entries({
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.scores": Float32Array.from([...new Array(259).fill(0), ...Object.values(pieces)]),
    "tokenizer.ggml.token_type": Int32Array.from(tokens, (_, i) => i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1),
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    ...changes,
  }));
}
