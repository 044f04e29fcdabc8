import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MllmError } from "@mllm/core";
import { ConfigReader, readBoolean, readInt, readInts, readNumber, readString } from "./config_reader.ts";

const reader = (fields: Record<string, unknown>) => new ConfigReader(fields, "config.json");

describe("ConfigReader", () => {
  it("reads, takes null for absent, reports what nobody read", () => {
    const config = reader({
      a: 5,
      b: null,
      c: 0.5,
      d: true,
      e: "x",
      f: [1, 2],
      g: 3,
      rope: { type: "yarn", old: 1 },
      z: 1,
    });
    assertEquals(readInt(config, "a"), 5);
    assertEquals(readInt(config, "b", { default: 7 }), 7);
    assertEquals(readNumber(config, "c", { min: 0, max: 1 }), 0.5);
    assertEquals(readBoolean(config, "d"), true);
    assertEquals(readBoolean(config, "missing", { default: false }), false);
    assertEquals(readString(config, "e", { oneOf: ["x", "y"] }), "x");
    assertEquals(readInts(config, "f"), [1, 2]);
    assertEquals(readInts(config, "g"), [3]);
    assertEquals(readInts(config, "missing"), []);
    assertEquals(readString(config.section("rope")!, "type"), "yarn");
    assertEquals(config.section("nothing"), undefined);
    assertEquals(config.ignored(), ["rope.old", "z"]);
    config.consume("z");
    assertEquals(config.ignored(), ["rope.old"]);
  });

  const bad: [value: unknown, message: string][] = [
    [undefined, "hidden_size is missing"],
    [-1, "is -1, not in 1"],
    [0, "is 0, not in 1"],
    [1.5, "is 1.5, not an integer"],
    [NaN, "is NaN, not an integer"],
    [Infinity, "not an integer"],
    [2 ** 53, "not an integer"],
    [2 ** 40, "not in 1 … 2147483647"],
    [10n ** 30n, "not an integer"],
    ["1024", "not an integer"],
    [[1], "not an integer"],
    [{}, "not an integer"],
    [true, "not an integer"],
  ];
  for (const [value, message] of bad) {
    it(`refuses ${typeof value === "object" ? JSON.stringify(value) : String(value)} as a size`, () => {
      const error = assertThrows(() => readInt(reader({ hidden_size: value }), "hidden_size"), MllmError, message);
      assertEquals([error.code, error.file], ["invalid_file", "config.json"]);
    });
  }

  it("refuses other wrong types and unknown names", () => {
    assertThrows(() => readNumber(reader({ a: NaN }), "a"), MllmError, "not a number");
    assertThrows(() => readBoolean(reader({ a: 1 }), "a"), MllmError, "not true or false");
    assertThrows(() => readString(reader({ a: 1 }), "a"), MllmError, "not a string");
    assertThrows(() => readInts(reader({ a: [1, -1] }), "a"), MllmError, "holds -1");
    assertThrows(() => readInt(new ConfigReader({}, "c", "rope."), "a"), MllmError, "rope.a is missing");
    assertThrows(() => reader({ rope: 5 }).section("rope"), MllmError, "is not an object");
    assertEquals(
      assertThrows(() => readString(reader({ a: "z" }), "a", { oneOf: ["x"] }), MllmError).code,
      "unsupported",
    );
    assertThrows(() => readInt(reader({}), "toString"), MllmError, "toString is missing");
  });
});
