import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MllmError } from "../errors.ts";
import { type JsonLimits, parseJson } from "./json.ts";

const parse = (text: string, limits?: JsonLimits) => parseJson(new TextEncoder().encode(text), "f.json", limits);

describe("parseJson", () => {
  it("equals JSON.parse, in both forms", () => {
    const text = String.raw`{"a":[1,-2.5e3,0,true,false,null,"x\n\u00e9\ud83c\udf89\"\\/"],"ü":{"":{}}, "e":[] }`;
    const expected = JSON.parse(text);
    assertEquals(parse(text), expected);
    assertEquals(JSON.stringify(parse(text, { uniqueKeys: true })), JSON.stringify(expected));
    assertEquals(parse("\ufeff[1]"), [1]);
  });

  const bad: [text: string, offset: number][] = [
    ["", 0],
    ["{", 1],
    ['{"a" 1}', 5],
    ['{"a":1,}', 7],
    ["[1,]", 3],
    ["[1 2]", 3],
    ["[01]", 1],
    ["[1.]", 1],
    ["[NaN]", 1],
    ["[-Infinity]", 1],
    ['["a', 1],
    ['["\t"]', 2],
    ['["\\x"]', 2],
    ["[tru]", 1],
    ["[]]", 2],
    ["{'a':1}", 1],
  ];
  for (const [text, offset] of bad) {
    for (const uniqueKeys of [true, false]) {
      it(`says where ${JSON.stringify(text)} is wrong (${uniqueKeys ? "strict" : "fast"})`, () => {
        const error = assertThrows(() => parse(text, { uniqueKeys }), MllmError);
        assertEquals([error.code, error.file, error.offset], ["invalid_file", "f.json", offset]);
      });
    }
  }

  it("bounds depth, values and keys", () => {
    assertThrows(() => parse("[".repeat(1e6)), MllmError, "nested deeper than 64");
    assertThrows(() => parse('{"a":'.repeat(65) + "1" + "}".repeat(65)), MllmError, "nested deeper");
    assertThrows(() => parse("[[],[],[],[]]", { valuesMax: 5 }), MllmError, "more than 5 values");
    assertThrows(() => parse('{"a":1,"b":2,"a":3}', { uniqueKeys: true }), MllmError, '"a" appears twice');
    assertEquals(parse('{"s":"[[[[{{{{\\"[["}', { depthMax: 1 }), { s: '[[[[{{{{"[[' });
  });

  it("refuses text that is not UTF-8", () => {
    for (const uniqueKeys of [true, false]) {
      const bytes = Uint8Array.of(0x5b, 0x22, 0xff, 0x22, 0x5d);
      assertThrows(() => parseJson(bytes, "f.json", { uniqueKeys }), MllmError, "not UTF-8");
    }
  });
});
