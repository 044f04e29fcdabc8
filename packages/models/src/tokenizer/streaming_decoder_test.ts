import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals } from "@std/assert";
import { tinySpm, toyTokenizer } from "../../testing/toy.ts";
import { Random } from "../sampling/random.ts";
import { createTokenizer } from "./create_tokenizer.ts";
import { StreamingDecoder } from "./streaming_decoder.ts";

const tokenizers = {
  "byte level": toyTokenizer(),
  "sentencepiece": createTokenizer({
    kind: "gguf",
    metadata: tinySpm({ "▁": -1, "▁▁": -1, a: -1, "▁a": -1, "é": -2 }),
  }),
};

describe("StreamingDecoder", () => {
  for (const [name, tokenizer] of Object.entries(tokenizers)) {
    it(`${name}: pieces joined are decode, for any ids`, () => {
      const random = new Random(7);
      const stream = new StreamingDecoder(tokenizer);
      const skipping = new StreamingDecoder(tokenizer, { skipSpecial: true });
      for (let round = 0; round < 2000; round++) {
        const ids = Array.from({ length: random.bits() % 12 }, () => random.bits() % (tokenizer.vocabSize + 2));
        assertEquals(ids.map((id) => stream.push(id)).join("") + stream.flush(), tokenizer.decode(ids));
        const text = ids.map((id) => skipping.push(id)).join("") + skipping.flush();
        assertEquals(text, tokenizer.decode(ids, { skipSpecial: true }));
      }
    });
    it(`${name}: never splits a character`, () => {
      const text = "a é 漢字 🙂 👩‍👩‍👧";
      const stream = new StreamingDecoder(tokenizer);
      const pieces = tokenizer.encode(text).map((id) => stream.push(id));
      assertEquals(pieces.join("") + stream.flush(), text);
      for (const piece of pieces) assert(piece.isWellFormed() && !piece.includes("\ufffd"));
    });
  }
  it("marks an unfinished character at the end", () => {
    const tokenizer = tokenizers.sentencepiece;
    const stream = new StreamingDecoder(tokenizer);
    assertEquals(stream.push(tokenizer.tokenId("<0xF0>")!), "");
    assertEquals(stream.push(tokenizer.tokenId("<0x9F>")!), "");
    assertEquals(stream.flush(), "\ufffd");
  });
});
