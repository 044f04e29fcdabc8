import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MllmError } from "../errors.ts";
import { fileExists, FileSource, MemorySource, readWholeFile } from "./byte_source.ts";

describe("ByteSource", () => {
  const path = Deno.makeTempFileSync();
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);

  it("reads ranges of files and of memory, and nothing outside of them", () => {
    Deno.writeFileSync(path, bytes);
    using file = new FileSource(path);
    for (const source of [file, new MemorySource(bytes, path)]) {
      assertEquals(source.size, 100);
      assertEquals(source.read(10, 5), bytes.subarray(10, 15));
      assertEquals(source.read(100, 0).length, 0);
      for (
        const [offset, length] of [[96, 5], [101, 0], [-1, 2], [0, -1], [0.5, 1], [0, 2 ** 60], [2 ** 60, 1], [NaN, 1]]
      ) {
        const error = assertThrows(() => source.read(offset, length), MllmError);
        assertEquals([error.code, error.file], ["invalid_file", path]);
      }
    }
  });

  it("says when a file shrinks while it is read", () => {
    Deno.writeFileSync(path, bytes);
    using file = new FileSource(path);
    Deno.truncateSync(path, 50);
    assertThrows(() => file.read(40, 20), MllmError, "became shorter");
  });

  it("refuses what is no regular file, what is missing, what is too large", () => {
    assertEquals(assertThrows(() => new FileSource("."), MllmError, "a directory").code, "invalid_file");
    assertEquals(assertThrows(() => new FileSource(`${path}.no`), MllmError, "no such file").code, "not_found");
    assertEquals(assertThrows(() => new FileSource(`${path}/x`), MllmError).code, "not_found");
    assertThrows(() => readWholeFile(path, 10), MllmError, "more than the 10 allowed");
    assertEquals([fileExists(path), fileExists(`${path}.no`)], [true, false]);
    Deno.removeSync(path);
  });
});
