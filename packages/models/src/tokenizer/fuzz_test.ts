import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals } from "@std/assert";
import { MllmError } from "@mllm/core";
import { toyGguf, toyJson } from "../../testing/toy.ts";
import { Random } from "../sampling/random.ts";
import { createTokenizer, type TokenizerSource } from "./create_tokenizer.ts";

// deno-lint-ignore no-explicit-any
type Tree = any;

const junk: Tree[] = [
  null,
  -1,
  2 ** 33,
  1e300,
  "x",
  "\ud800",
  [],
  {},
  true,
  [null],
  { type: "Sequence" },
  { type: "ByteLevel" },
  { type: "Split", pattern: { Regex: "(" } },
  { type: "Split", pattern: {} },
  { type: "FixedLength", length: 0 },
  { type: "Replace", pattern: { String: "a" }, content: 5 },
  { type: "TemplateProcessing" },
];

/** Deletes or replaces something, at any depth. */
function mutate(tree: Tree, random: Random, depth = 0): void {
  const keys = Object.keys(tree);
  if (keys.length === 0) return;
  const key = keys[random.bits() % keys.length];
  const child = tree[key];
  if (depth < 4 && child && typeof child === "object" && random.bits() % 4 > 0) mutate(child, random, depth + 1);
  else if (random.bits() % 5 === 0 && !Array.isArray(tree) && !ArrayBuffer.isView(tree)) delete tree[key];
  else tree[key] = structuredClone(junk[random.bits() % junk.length]);
}

describe("mutated tokenizers work or throw MllmError", () => {
  const makers: Record<string, () => [Tree, () => TokenizerSource]> = {
    "tokenizer.json": () => {
      const tokenizer = toyJson();
      return [tokenizer, () => ({ kind: "json", tokenizer })];
    },
    "GGUF": () => {
      const entries: Tree = Object.fromEntries(toyGguf());
      return [entries, () => ({ kind: "gguf", metadata: new Map(Object.entries(entries)) })];
    },
  };
  for (const [name, make] of Object.entries(makers)) {
    it(name, () => {
      const random = new Random(42);
      let made = 0;
      for (let round = 0; round < 400; round++) {
        const [tree, source] = make();
        for (let n = random.bits() % 3; n >= 0; n--) mutate(tree, random);
        try {
          const tokenizer = createTokenizer(source());
          tokenizer.decode(tokenizer.encode("The cat's <|im_end|> 12 é🙂", { addSpecial: true }));
          made++;
        } catch (error) {
          assert(error instanceof MllmError, String(error));
          assertEquals(error.message.includes("\n"), false);
        }
      }
      assert(made > 0 && made < 400);
    });
  }
});
