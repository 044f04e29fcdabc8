import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { byteLength, dtypeFromId, dtypes, q8aRowBytes } from "./dtype.ts";
import { MllmError } from "./errors.ts";
import * as abi from "./native/abi.ts";

describe("dtypes", () => {
  it("are those of the native ABI", () => {
    assertEquals(Object.keys(dtypes).sort(), Object.keys(abi.Dtype).sort());
    for (const [name, { id }] of Object.entries(dtypes)) assertEquals(dtypeFromId(id), name);
    assertThrows(() => dtypeFromId(1000), MllmError, "1000");
  });

  it("have byte lengths of whole blocks", () => {
    assertEquals(byteLength("f32", [3, 5]), 60);
    assertEquals(byteLength("q4_0", [2, 64]), 72);
    assertEquals(byteLength("q6_k", [256]), 210);
    assertEquals(q8aRowBytes(32), 64);
    assertEquals(byteLength("q8a", [3, 64]), 3 * q8aRowBytes(64));
    assertThrows(() => byteLength("q4_0", [2, 33]), MllmError, "33");
    assertThrows(() => byteLength("q8a", [2, 33]), MllmError, "33");
    assertThrows(() => byteLength("q8_g16", [2, 32]), MllmError, "packed");
  });
});
