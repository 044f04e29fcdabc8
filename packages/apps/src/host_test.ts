import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertRejects } from "@std/assert";
import { MllmError } from "@mllm/core";
import { readLines } from "./host.ts";

/** An input that gives these pieces, one a read. */
function input(pieces: Iterable<Uint8Array>) {
  const iterator = pieces[Symbol.iterator]();
  return {
    isTerminal: false,
    setRaw: () => {},
    read(buffer: Uint8Array): Promise<number | null> {
      const { value, done } = iterator.next();
      if (done) return Promise.resolve(null);
      buffer.set(value);
      return Promise.resolve(value.length);
    },
  };
}

describe("readLines", () => {
  it("gives the same lines however the bytes are cut", async () => {
    const bytes = new TextEncoder().encode("one\r\n\nç漢🙂\nlast");
    for (const size of [1, 2, 3, bytes.length]) {
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
      assertEquals(await Array.fromAsync(readLines(input(pieces))), ["one", "", "ç漢🙂", "last"]);
    }
  });
  it("bounds the length of a line", async () => {
    const piece = new Uint8Array(64 << 10).fill(97);
    const endless = input(function* () {
      for (let i = 0; i < 2000; i++) yield piece;
    }());
    const error = await assertRejects(() => Array.fromAsync(readLines(endless)), MllmError, "64 Mi characters");
    assertEquals(error.code, "invalid_argument");
  });
});
