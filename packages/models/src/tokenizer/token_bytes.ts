import type { Vocabulary } from "./vocabulary.ts";

/**
 * How a vocabulary writes bytes down as text.
 *
 * - `byte-level`: GPT-2's alphabet, one printable character for each byte. A token with a character outside of it
 * (such as
 *   `<｜begin▁of▁sentence｜>`) stands for its own text, as in the Hugging Face decoder.
 * - `pieces`: plain text after `replacements`, and `<0x0A>` for single bytes where `byteFallback` is on.
 */
export type ByteRules =
  | { kind: "byte-level" }
  | { kind: "pieces"; replacements: readonly (readonly [string, string])[]; byteFallback: boolean };

const utf8 = new TextEncoder();
const byteToken = /^<0x([0-9A-Fa-f]{2})>$/;

/**
 * GPT-2's table (openai/gpt-2, encoder.py): bytes that print as themselves in Latin-1 keep their place, the others go
 * to U+0100 and up.
 */
const byteOfCharacter: Int16Array = (() => {
  const table = new Int16Array(0x200).fill(-1);
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table[prints ? byte : next++] = byte;
  }
  return table;
})();

/** The bytes that a token of this text stands for. */
export function bytesOfToken(text: string, rules: ByteRules): Uint8Array {
  if (rules.kind === "byte-level") {
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) {
      const byte = byteOfCharacter[text.charCodeAt(i)] ?? -1;
      if (byte < 0) return utf8.encode(text);
      bytes[i] = byte;
    }
    return bytes;
  }
  if (rules.byteFallback) {
    const match = byteToken.exec(text);
    if (match) return Uint8Array.of(parseInt(match[1], 16));
  }
  let out = text;
  for (const [from, to] of rules.replacements) out = out.replaceAll(from, to);
  return utf8.encode(out);
}

/** Ids of `<0x00>` … `<0xFF>`, or undefined where one is missing: bytes are then no way out for unknown characters. */
export function byteTokenIds(vocabulary: Vocabulary): Int32Array | undefined {
  const ids = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const id = vocabulary.id(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    if (id < 0) return undefined;
    ids[byte] = id;
  }
  return ids;
}
