import type { GgufInput } from "@mllm/core";
import { ggufU32 } from "@mllm/core";

const specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const thinking = ["<think>", "</think>"];
const letters = [..."abcdefghijklmnopqrstuvwxyz"];
/** `Ġ`, how byte-level BPE writes a space. */
const space = "\u0120";

/** The 256 characters that byte-level BPE writes bytes with (GPT-2, encoder.py, bytes_to_unicode), in GPT-2's order. */
function byteCharacters(): string[] {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const bytes = Array.from({ length: 256 }, (_, b) => b);
  const others = bytes.filter((b) => !printable(b)).map((_, i) => String.fromCharCode(256 + i));
  return [...bytes.filter(printable).map((b) => String.fromCharCode(b)), ...others];
}

/** Pairs to merge, best first: each joins two tokens that exist, and no two give the same text. */
function* pairs(): Generator<[string, string]> {
  for (const a of letters) yield [space, a];
  for (const a of letters) for (const b of letters) yield [a, b];
  for (const a of letters) for (const b of letters) yield [space + a, b];
  for (const a of letters) for (const b of letters) for (const c of letters) yield [a + b, c];
  for (const a of letters) for (const b of letters) for (const c of letters) yield [space + a + b, c];
  // Four letters, in an order that is spread over the alphabet (the step has no common divisor with 26^4).
  const count = 26 ** 4;
  for (let i = 0; i < count; i++) {
    const n = (i * 104729) % count;
    const at = (power: number) => letters[Math.floor(n / power) % 26];
    yield [at(17576) + at(676), at(26) + at(1)];
  }
}

const template =
  "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor %}" +
  "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

/**
 * GGUF metadata of a made-up byte-level BPE vocabulary with `size` ids: 256 bytes, merges of letters, ChatML's control
 * tokens where Qwen has them (for 151936), unused ids up to `size`. Any text can be encoded.
 */
export function vocabularyMetadata(size: number): Record<string, GgufInput> {
  const firstSpecial = size === 151936 ? 151643 : size - specials.length - thinking.length;
  const tokens = byteCharacters();
  const merges: string[] = [];
  for (const [a, b] of pairs()) {
    if (tokens.length >= firstSpecial) break;
    tokens.push(a + b);
    merges.push(`${a} ${b}`);
  }
  const plain = tokens.length;
  tokens.push(...specials, ...thinking);
  const types = new Int32Array(size).fill(1, 0, plain).fill(3, plain, plain + 3).fill(4, plain + 3, tokens.length);
  types.fill(5, tokens.length);
  while (tokens.length < size) tokens.push(`[PAD${tokens.length}]`);
  return {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": types,
    "tokenizer.ggml.merges": merges,
    "tokenizer.ggml.eos_token_id": ggufU32(plain + 2),
    "tokenizer.ggml.padding_token_id": ggufU32(plain),
    "tokenizer.ggml.add_bos_token": false,
    "tokenizer.chat_template": template,
  };
}

/** Fewest ids that a made-up vocabulary can have. */
export const vocabularySizeMin = 256 + specials.length + thinking.length;
