/** All of `../shared/golden/tokenizers`, where it is present: third-party vocabularies that may not be copied here. */
import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals } from "@std/assert";
import { openGguf } from "@mllm/core";
import { goldenPath, skipWithout } from "../../../../tools/testing/golden.ts";
import { createTokenizer } from "./create_tokenizer.ts";
import { StreamingDecoder } from "./streaming_decoder.ts";
import type { Tokenizer } from "./tokenizer.ts";

interface Golden {
  vocab_size: number;
  cases: { text: string; ids: number[]; decoded?: string }[];
  special_cases: { text: string; ids_parse_special: number[]; ids_special_as_text: number[] }[];
  with_add_special_tokens: { text: string; ids: number[] }[];
}

const root = goldenPath("tokenizers");

function names(): string[] {
  if (root === undefined) return [];
  return [...Deno.readDirSync(root)].filter((entry) => entry.isDirectory).map((entry) => entry.name).sort();
}

function check(tokenizer: Tokenizer, golden: Golden, addsBos: boolean): void {
  assertEquals(tokenizer.vocabSize, golden.vocab_size);
  for (const { text, ids, decoded } of golden.cases) {
    assertEquals(tokenizer.encode(text), ids, JSON.stringify(text));
    const stream = new StreamingDecoder(tokenizer);
    const streamed = ids.map((id) => stream.push(id)).join("") + stream.flush();
    assertEquals(streamed, tokenizer.decode(ids));
    if (decoded !== undefined) assertEquals(streamed, decoded);
  }
  for (const { text, ids_parse_special, ids_special_as_text } of golden.special_cases) {
    assertEquals(tokenizer.encode(text), ids_parse_special, text);
    assertEquals(tokenizer.encode(text, { parseSpecial: false }), ids_special_as_text, text);
  }
  for (const { text, ids } of golden.with_add_special_tokens) {
    const expected = addsBos ? [tokenizer.bosId!, ...ids] : ids;
    assertEquals(tokenizer.encode(text, { addSpecial: true }), expected, text);
  }
}

describe("tokenizers against the golden data", () => {
  it("finds them", { skip: skipWithout(root) }, () => assert(names().length > 5));
  for (const name of names()) {
    const folder = `${root}/${name}`;
    const golden: Golden = JSON.parse(Deno.readTextFileSync(`${folder}/golden.json`));
    for (const { name: file } of Deno.readDirSync(folder)) {
      if (file === "tokenizer.json") {
        it(`${name}, ${file}`, () => {
          const tokenizer = JSON.parse(Deno.readTextFileSync(`${folder}/${file}`));
          const start = performance.now();
          const made = createTokenizer({ kind: "json", tokenizer });
          const ms = performance.now() - start;
          check(made, golden, false);
          assert(ms < 20_000, `loading took ${ms} ms`);
        });
      } else if (file.endsWith(".gguf")) {
        it(`${name}, ${file}`, async () => {
          const { metadata } = await openGguf(`${folder}/${file}`);
          // This file says add_bos_token, the golden ids were made without looking at it.
          check(createTokenizer({ kind: "gguf", metadata }), golden, name === "deepseek-coder");
        });
      }
    }
  }
});
