import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import { givenText, readAll, readLines, readTextFile } from "./given_text.ts";

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
    const error = await assertRejects(() => Array.fromAsync(readLines(endless)), MllmError, "64 MiB");
    assertEquals(error.code, "invalid_argument");
  });
  it("names the byte that is not UTF-8, or repairs what a person typed", async () => {
    const pieces = () =>
      input([Uint8Array.of(0x61, 0x0a, 0xc3), Uint8Array.of(0xa7, 0x62, 0xe2, 0x28), Uint8Array.of(0x0a)]);
    const lines = readLines(pieces());
    assertEquals((await lines.next()).value, "a");
    const error = await assertRejects(() => lines.next(), MllmError, "this is not UTF-8 text (stdin at byte 5)");
    assertEquals(error.code, "invalid_argument");
    assertEquals(await Array.fromAsync(readLines(pieces(), { repair: true })), ["a", "çb\ufffd("]);
  });
});

describe("texts of the user", () => {
  it("keep a byte-order mark, and lose one line end", async () => {
    const bytes = new TextEncoder().encode("\ufeffa\r\n\n");
    const pieces = () => input([bytes.subarray(0, 2), bytes.subarray(2)]);
    assertEquals(await readAll(pieces()), "\ufeffa\r\n\n");
    assertEquals(await givenText("-", pieces()), "\ufeffa\r\n");
    assertEquals((await Array.fromAsync(readLines(pieces())))[0], "\ufeffa");
    const file = await Deno.makeTempFile();
    await Deno.writeFile(file, bytes);
    assertEquals(await givenText(file, input([])), "\ufeffa\r\n");
    await Deno.remove(file);
  });

  it("are UTF-8 within a limit", async () => {
    await assertRejects(() => readAll(input([Uint8Array.of(0xff, 0xfe)])), MllmError, "(stdin at byte 0)");
    await assertRejects(() => readAll(input([Uint8Array.of(0x61, 0xe6, 0xbc)])), MllmError, "(stdin at byte 1)");
    const file = await Deno.makeTempFile();
    await Deno.writeFile(file, Uint8Array.of(0x61, 0x62, 0x80));
    const error = assertThrows(() => readTextFile(file), MllmError, `this is not UTF-8 text (${file} at byte 2)`);
    assertEquals(error.code, "invalid_argument");
    assertThrows(() => readTextFile(file, 2), MllmError, "the file has 3 bytes, more than 2");
    await Deno.remove(file);
  });

  it("come from regular files only: a device or pipe might never end", { skip: Deno.build.os === "windows" }, () => {
    assertThrows(() => readTextFile("/dev/zero"), MllmError, "not a regular file (/dev/zero)");
  });
});
