import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import { tinySpm, toyGguf, toyJson, toyTokenizer } from "../../testing/toy.ts";
import { createTokenizer } from "./create_tokenizer.ts";

const texts = [
  "",
  " ",
  "The cat's 12 hats,\n\n  and 345 more.\t",
  "naïve 漢字 🙂👩‍👩‍👧 \u0301\u200d",
  "\ufeffbom \0 nul",
  "<|im_start|>user\nhi<|im_end|>",
  "a<|im_end|><|im_end|> b <|im_en",
];

describe("tokenizer.json", () => {
  const toy = toyTokenizer();
  const imStart = toy.tokenId("<|im_start|>")!;

  it("gives every text back", () => {
    for (const text of texts) {
      assertEquals(toy.decode(toy.encode(text)), text);
      assertEquals(toy.decode(toy.encode(text, { parseSpecial: false })), text);
    }
  });
  it("parses control tokens only on request", () => {
    assertEquals(toy.encode("<|im_start|>")[0], imStart);
    const plain = toy.encode("<|im_start|>", { parseSpecial: false });
    assert(plain.length > 1 && plain.every((id) => !toy.isSpecial(id)));
    assertEquals(toy.decode([imStart, ...plain], { skipSpecial: true }), "<|im_start|>");
  });
  it("leaves control tokens alone in plain ranges", () => {
    const text = "<|im_start|>a<|im_start|>";
    const ids = toy.encode(text, { plain: [[13, 25]] });
    assertEquals(ids[0], imStart);
    assertEquals(ids.slice(1), toy.encode("a<|im_start|>", { parseSpecial: false }));
  });
  it("names the ends of a reply", () => {
    assertEquals(toy.eosIds, [toy.tokenId("<|im_end|>"), toy.tokenId("<|endoftext|>")]);
    assertEquals(toy.tokenText(toy.eosIds[0]), "<|im_end|>");
    assertEquals(toy.bosId, undefined);
  });
  it("makes no control token from a vocabulary that spells one out", () => {
    const json = toyJson();
    json.model.ignore_merges = true;
    json.pre_tokenizer = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    const tokenizer = createTokenizer({ kind: "json", tokenizer: json });
    const ids = tokenizer.encode("<|im_end|>", { parseSpecial: false });
    assert(ids.every((id) => !tokenizer.isSpecial(id)));
  });
  it("adds what the post-processor says", () => {
    const json = toyJson();
    const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    json.post_processor = {
      type: "TemplateProcessing",
      single: [special("<|im_start|>"), { Sequence: { id: "A", type_id: 0 } }, special("<|im_end|>")],
      pair: [],
      special_tokens: {},
    };
    const tokenizer = createTokenizer({ kind: "json", tokenizer: json });
    const [start, end] = ["<|im_start|>", "<|im_end|>"].map((text) => tokenizer.tokenId(text)!);
    assertEquals(tokenizer.encode("a", { addSpecial: true }), [start, ...tokenizer.encode("a"), end]);
  });
  it("takes white space with a token that strips, and words only whole", () => {
    const json = toyJson();
    json.added_tokens.push(
      { id: 512, content: "<cut>", special: true, lstrip: true, rstrip: true },
      { id: 513, content: "cat", special: false, normalized: true, single_word: true },
    );
    const tokenizer = createTokenizer({ kind: "json", tokenizer: json });
    assertEquals(tokenizer.encode("a \n<cut>\t b"), [...tokenizer.encode("a"), 512, ...tokenizer.encode("b")]);
    assertEquals(tokenizer.encode("cat").includes(513), true);
    assertEquals(tokenizer.encode("cats").includes(513), false);
  });
});

describe("GGUF metadata", () => {
  it("gives the same ids as tokenizer.json", () => {
    const json = toyTokenizer();
    const gguf = createTokenizer({ kind: "gguf", metadata: toyGguf() });
    assertEquals(gguf.eosIds[0], json.eosIds[0]);
    // Qwen2's NFC comes with the name of the pre-tokenizer, the toy file has none.
    for (const text of texts.map((text) => text.normalize("NFC"))) assertEquals(gguf.encode(text), json.encode(text));
  });
  it("merges sentencepiece tokens by score, leftmost first, with bytes for the rest", () => {
    const spm = createTokenizer({
      kind: "gguf",
      metadata: tinySpm({ "▁": -9, a: -9, b: -9, ab: -2, ba: -1, "▁a": -3, "▁ab": -4, "</": -1, "s>": -1, "</s>x": 0 }),
    });
    const pieces = (text: string) => spm.encode(text, { parseSpecial: false }).map((id) => spm.tokenText(id));
    assertEquals(pieces("ab"), ["▁ab"]);
    assertEquals(pieces("aba"), ["▁a", "ba"]);
    assertEquals(pieces("aé"), ["▁a", "<0xC3>", "<0xA9>"]);
    assertEquals(spm.decode(spm.encode(" aé b")), " aé b");
    assertEquals(spm.encode("a", { addSpecial: true })[0], 1);
    assert(spm.encode("</s>", { parseSpecial: false }).every((id) => !spm.isSpecial(id)));
    assertEquals(spm.encode("a</s>b").filter((id) => id === 2).length, 1);
    const bare = createTokenizer({
      kind: "gguf",
      metadata: tinySpm({ "▁": -1, a: -1 }, { "tokenizer.ggml.add_space_prefix": false }),
    });
    assertEquals(bare.encode("a"), [bare.tokenId("a")]);
    assertEquals(bare.decode(bare.encode(" a")), " a");
  });
  it("refuses what it doesn't know, by name", () => {
    const make = (changes: Record<string, unknown>) => () =>
      createTokenizer({ kind: "gguf", metadata: toyGguf(changes) });
    const error = assertThrows(make({ "tokenizer.ggml.pre": "klingon" }), MllmError, "klingon");
    assertEquals(error.code, "unsupported");
    assertEquals(assertThrows(make({ "tokenizer.ggml.model": "rwkv" }), MllmError, "rwkv").code, "unsupported");
  });
  it("knows every pre-tokenizer of its table", () => {
    for (
      const pre of "qwen2 llama-bpe gpt-2 mpt smollm default falcon deepseek-coder deepseek-v3 tekken gpt-4o".split(" ")
    ) {
      const tokenizer = createTokenizer({ kind: "gguf", metadata: toyGguf({ "tokenizer.ggml.pre": pre }) });
      const text = "It's 1234 Häuser,\n\n  (a+b) HTTPServer 漢字 🙂 ";
      assertEquals(tokenizer.decode(tokenizer.encode(text)), text, pre);
    }
  });
});

describe("broken tokenizers", () => {
  const json = (change: (root: ReturnType<typeof toyJson>) => void) => {
    const root = toyJson();
    change(root);
    return () => createTokenizer({ kind: "json", tokenizer: root });
  };
  const cases: Record<string, () => unknown> = {
    "no object": () => createTokenizer({ kind: "json", tokenizer: 7 }),
    "null": () => createTokenizer({ kind: "json", tokenizer: null }),
    "no model": json((root) => delete root.model),
    "no vocabulary": json((root) => delete root.model.vocab),
    "huge id": json((root) => root.model.vocab.zzz = 2 ** 40),
    "negative id": json((root) => root.model.vocab.zzz = -1),
    "broken id": json((root) => root.model.vocab.zzz = "5"),
    "shared id": json((root) => root.model.vocab.zzz = 5),
    "shared added id": json((root) => root.added_tokens[0].id = 5),
    "huge added id": json((root) => root.added_tokens[0].id = 1e300),
    "added token without text": json((root) => root.added_tokens[0].content = 5),
    "added tokens no list": json((root) => root.added_tokens = {}),
    "no merges": json((root) => delete root.model.merges),
    "merge of nothing": json((root) => root.model.merges.push("x")),
    "merge of unknown": json((root) => root.model.merges.push(["qqq", "zzz"])),
    "merge of numbers": json((root) => root.model.merges.push([1, 2])),
    "broken expression": json((root) => root.pre_tokenizer.pretokenizers[0].pattern.Regex = "(((["),
    "no stages": json((root) => root.pre_tokenizer = 5),
    "decoder no object": json((root) => root.decoder = [1]),
    "post-processor of unknown tokens": json((root) =>
      root.post_processor = {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<nix>" } }, { Sequence: {} }],
      }
    ),
    "post-processor without names": json((root) =>
      root.post_processor = { type: "TemplateProcessing", single: [{ SpecialToken: {} }, { Sequence: { id: "A" } }] }
    ),
    "no tokens": () => createTokenizer({ kind: "gguf", metadata: toyGguf({ "tokenizer.ggml.tokens": undefined }) }),
    "tokens of numbers": () =>
      createTokenizer({ kind: "gguf", metadata: toyGguf({ "tokenizer.ggml.tokens": new Array(512).fill(1) }) }),
    "types of another length": () =>
      createTokenizer({ kind: "gguf", metadata: toyGguf({ "tokenizer.ggml.token_type": new Int32Array(3) }) }),
    "EOS beyond": () => createTokenizer({ kind: "gguf", metadata: toyGguf({ "tokenizer.ggml.eos_token_id": 9999 }) }),
    "no scores": () =>
      createTokenizer({ kind: "gguf", metadata: tinySpm({ a: 1 }, { "tokenizer.ggml.scores": null }) }),
    "scores NaN": () => createTokenizer({ kind: "gguf", metadata: tinySpm({ a: NaN }) }),
  };
  for (const [name, make] of Object.entries(cases)) {
    it(name, () => assertEquals(assertThrows(make, MllmError, "tokenizer").code, "invalid_file"));
  }
  it("other models and decoders are unsupported", () => {
    for (
      const make of [
        json((root) => root.model.type = "Unigram"),
        json((root) => root.decoder = { type: "CTC" }),
        json((root) => root.normalizer = { type: "Rot13" }),
        json((root) => root.model.end_of_word_suffix = "</w>"),
      ]
    ) assertEquals(assertThrows(make, MllmError).code, "unsupported");
  });
  it("expressions that may run for ever are unsupported, those of real files and simple ones are not", () => {
    const split = (Regex: string) =>
      json((root) => root.pre_tokenizer = { type: "Split", pattern: { Regex }, behavior: "Isolated" });
    const hostile = [
      ..."(?:a|a)+! (a+)+! (?:a*)*b a*a*! a+! (?:a+|b)! (a)\\1 [\\s\\S]*?! (a?){30} (?=a*b) [[a]b]* (?>a)".split(" "),
      "a?".repeat(30) + "a".repeat(30),
      "(?:a|a)".repeat(30),
      "(?:".repeat(100) + "a" + ")".repeat(100),
      "(".repeat(100_000),
    ];
    for (const regex of hostile) {
      assertEquals(assertThrows(split(regex), MllmError, "tokenizer").code, "unsupported", regex);
    }
    const unbalanced = assertThrows(split("(a"), MllmError, "is broken. Compare the file with the published one");
    assertEquals(unbalanced.code, "invalid_file");
    const dialect = assertThrows(split("\\p{Foo}+"), MllmError, "Use a GGUF file");
    assertEquals(dialect.code, "unsupported");
    const gpt2 = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    for (const regex of [gpt2, "\\d{1,3}", "[a-z]+[\\r\\n]*|x", " {2,}", "(?<=a)b", "(?:a|bc)?d+"]) {
      assertEquals(split(regex)().encode("").length, 0);
    }
  });
  it("only a split at spaces that are gone may have another behaviour", () => {
    const make = (pattern: unknown, normalizer: unknown) =>
      json((root) => {
        root.normalizer = normalizer;
        root.pre_tokenizer = { type: "Split", pattern, behavior: "MergedWithPrevious" };
      });
    const underscores = { type: "Replace", pattern: { String: " " }, content: "_" };
    make({ String: " " }, underscores)();
    assertThrows(make({ Regex: "\\d" }, underscores), MllmError, "MergedWithPrevious");
    assertThrows(make({ String: " " }, null), MllmError, "MergedWithPrevious");
  });
  it("ids are checked", () => {
    const toy = toyTokenizer();
    assertThrows(() => toy.decode([-1]), MllmError, "-1");
    assertThrows(() => toy.decode([1.5]), MllmError, "1.5");
    assertEquals(toy.decode([1_000_000]), "");
    assertThrows(() => toy.encode("a".repeat(17 * 1024 * 1024)), MllmError, "too long");
  });
});

describe("long texts", () => {
  const long: Record<string, string> = {
    "one letter": "a".repeat(1_000_000),
    "spaces": " ".repeat(1_000_000) + "x",
    "lines of spaces": (" ".repeat(999) + "\n").repeat(500),
    "beginnings of tokens": "<|im_".repeat(100_000),
    "combining marks": "a" + "\u0301".repeat(500_000),
    "lone surrogates": "\ud800".repeat(100_000),
  };
  const tokenizers = {
    bpe: toyTokenizer(),
    spm: createTokenizer({ kind: "gguf", metadata: tinySpm({ "▁": -1, a: -1, aa: -2, "▁▁": -3 }) }),
  };
  for (const [kind, tokenizer] of Object.entries(tokenizers)) {
    for (const [name, text] of Object.entries(long)) {
      it(`${kind}: ${name}`, () => {
        const start = performance.now();
        assert(tokenizer.decode(tokenizer.encode(text)) === text.toWellFormed());
        const ms = performance.now() - start;
        assert(ms < 20_000, `took ${ms} ms`);
      });
    }
  }
});
