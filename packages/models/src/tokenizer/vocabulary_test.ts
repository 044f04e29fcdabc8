import { TextList } from "@mllm/core";
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Vocabulary } from "./vocabulary.ts";

describe("Vocabulary", () => {
  it("finds every token by its text", () => {
    const texts = Array.from({ length: 3000 }, (_, i) => `Ġ${(i * 7919).toString(36)}`);
    const vocabulary = new Vocabulary(TextList.from(texts));
    assertEquals(texts.map((text) => vocabulary.id(text)), texts.map((_, i) => i));
    assertEquals(texts.map((_, i) => vocabulary.text(i)), texts);
    assertEquals([vocabulary.id("no"), vocabulary.id(""), vocabulary.text(3000)], [-1, -1, undefined]);
    assertEquals(vocabulary.id("x".repeat(1000)), -1);
    assertEquals(vocabulary.ids().sort(), Int32Array.from(texts.keys()));
  });

  it("tells texts of one UTF-16 unit", () => {
    const texts = ["a", "é", "漢", "🎉", "ab", "éa", "abc", "aé", "", "\ufffd"];
    const vocabulary = new Vocabulary(TextList.from(texts));
    const units = texts.map((text) => text.length === 1 ? text.charCodeAt(0) : -1);
    assertEquals(texts.map((_, id) => vocabulary.unit(id)), units);
  });

  it("takes the first of equal texts, and another when told", () => {
    const vocabulary = new Vocabulary(TextList.from(["a", "", "a", "b"]));
    assertEquals([vocabulary.length, vocabulary.size, vocabulary.text(1)], [4, 2, undefined]);
    assertEquals([0, 1, 2, 3].map((id) => vocabulary.isFound(id)), [true, false, false, true]);
    assertEquals(vocabulary.id("a"), 0);
    vocabulary.prefer(2);
    assertEquals([vocabulary.id("a"), vocabulary.text(0), vocabulary.size], [2, "a", 2]);
  });

  it("joins tokens", () => {
    const vocabulary = new Vocabulary(TextList.from(["a", "é", "aé", "éa", "aéa"]));
    assertEquals([[0, 1], [1, 0], [2, 0], [0, 3], [0, 0]].map(([a, b]) => vocabulary.findJoined(a, b)), [
      2,
      3,
      4,
      4,
      -1,
    ]);
    assertEquals([vocabulary.isJoined(4, 2, 0), vocabulary.isJoined(4, 0, 2), vocabulary.isJoined(2, 0, 0)], [
      true,
      false,
      false,
    ]);
  });

  it("finds only what it is to keep", () => {
    const vocabulary = new Vocabulary(TextList.from(["a", "b", "c"]), (id) => id !== 1);
    assertEquals(["a", "b", "c"].map((text) => vocabulary.id(text)), [0, -1, 2]);
    assertEquals([vocabulary.text(1), vocabulary.size], ["b", 2]);
  });
});
