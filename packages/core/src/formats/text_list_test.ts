import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { TextList } from "./text_list.ts";
import { isUtf8 } from "./utf8.ts";

describe("TextList", () => {
  it("keeps texts of every length", () => {
    const texts = ["", "a", "Ġthe", "漢字", "🎉", "", "x".repeat(5000), ...Array(300).fill("ü")];
    const list = TextList.from(texts);
    assertEquals([...list], texts);
    assertEquals([list.length, list.at(-1), list.at(texts.length)], [texts.length, undefined, undefined]);
    assertEquals([...TextList.from([])], []);
    assertEquals([...TextList.from(["a\ud800"])], ["a\ufffd"]);
  });

  it("makes what is not UTF-8 well-formed", () => {
    const bytes = Uint8Array.of(0x61, 0xff, 0, 0xc3, 0xa9);
    const list = new TextList(bytes, Uint32Array.of(0, 3, 6), 1);
    assertEquals(list.wellFormed().bytes, new TextEncoder().encode("a\ufffdé"));
    const fine = new TextList(bytes.subarray(3), Uint32Array.of(0, 2));
    assertEquals(fine.wellFormed() === fine, true);
  });
});

describe("isUtf8", () => {
  it("agrees with TextDecoder on every two bytes, and on longer edges", () => {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    const check = (...values: number[]) => {
      const bytes = Uint8Array.from(values);
      let valid = true;
      try {
        decoder.decode(bytes);
      } catch {
        valid = false;
      }
      assertEquals(isUtf8(bytes, 0, bytes.length), valid, String(values));
    };
    for (let a = 0x7f; a < 256; a++) for (let b = 0; b < 256; b++) check(a, b);
    const edges = [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff];
    for (const a of [0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5]) {
      for (const b of edges) {
        for (const c of edges) for (const d of edges) for (const n of [3, 4]) check(...[a, b, c, d].slice(0, n));
      }
    }
  });
});
