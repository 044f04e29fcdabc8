import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MllmError } from "../errors.ts";
import { readTensors } from "../../testdata/tensors.ts";
import { goldenPath, skipWithout } from "../../../../tools/testing/golden.ts";
import { type GgufValue, openGguf, readGguf } from "./gguf.ts";
import { encodeGguf, type GgufContent, type GgufInput, ggufU32, writeGguf } from "./gguf_writer.ts";
import { dequantize } from "./quant/dequantize.ts";
import { TextList } from "./text_list.ts";
import { readWeight } from "./weight_info.ts";

const tensor = { name: "a", dtype: "f32" as const, shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) };
const encode = (metadata: Record<string, GgufInput>, tensors: GgufContent["tensors"] = [tensor]) =>
  encodeGguf({ metadata, tensors });

/** Text lists as arrays, at any depth. */
const plain = (value: unknown): unknown =>
  value instanceof TextList ? [...value] : Array.isArray(value) ? value.map(plain) : value;

/** The bytes of `encode({k: "v"})` with a number overwritten at the byte after `marker`. */
function patched(marker: string, skip: number, bytes: 4 | 8, value: bigint): Uint8Array {
  const file = encode({ kkkk: "vvvv", list: ["x", "y"] });
  const at = new TextDecoder("latin1").decode(file).indexOf(marker) + skip;
  const view = new DataView(file.buffer);
  if (bytes === 4) view.setUint32(at, Number(value), true);
  else view.setBigUint64(at, value, true);
  return file;
}

describe("readGguf", () => {
  it("reads every metadata type that encodeGguf writes", () => {
    const values: Record<string, GgufInput> = {
      string: "grüße 🎉",
      empty: "",
      yes: true,
      strings: ["a", "Ġthe", "", "漢字", "🎉", "x".repeat(5000)],
      flags: [true, false],
      nested: [[[new Int32Array([1, 2])], []], [["x"]]] as GgufInput,
      u8s: Uint8Array.of(1, 255),
      i8s: Int8Array.of(-1),
      u16s: Uint16Array.of(65535),
      i16s: Int16Array.of(-5),
      u32s: Uint32Array.of(2 ** 32 - 1),
      i32s: Int32Array.of(-1),
      f32s: Float32Array.of(0.5),
      u64s: BigUint64Array.of(2n ** 63n),
      i64s: BigInt64Array.of(-5n),
      f64s: Float64Array.of(Math.PI),
    };
    const numbers: [string, GgufInput, GgufValue][] = [
      ["u8", { type: "u8", value: 255 }, 255],
      ["i8", { type: "i8", value: -3 }, -3],
      ["u16", { type: "u16", value: 65535 }, 65535],
      ["i16", { type: "i16", value: -3 }, -3],
      ["u32", ggufU32(4e9), 4e9],
      ["i32", { type: "i32", value: -3 }, -3],
      ["f32", { type: "f32", value: 1.5 }, 1.5],
      ["f64", { type: "f64", value: Math.E }, Math.E],
      ["u64", { type: "u64", value: 2n ** 64n - 1n }, 2n ** 64n - 1n],
      ["u64 small", { type: "u64", value: 5 }, 5],
      ["i64", { type: "i64", value: -(2n ** 63n) }, -(2n ** 63n)],
    ];
    for (const [key, input] of numbers) values[key] = input;
    const { metadata, tensors, version } = readGguf(encode(values));
    assertEquals(version, 3);
    for (const [key, , value] of numbers) assertEquals(metadata.get(key), value);
    for (const [key, value] of Object.entries(values)) {
      if (numbers.some(([name]) => name === key)) continue;
      // An empty list has no element type in JavaScript; it comes back as strings.
      assertEquals(plain(metadata.get(key)), value);
    }
    assertEquals(tensors.get("a")!.shape, [2, 3]);
  });

  it("keeps strings that are not UTF-8 readable", () => {
    const file = encode({ k: "abcd", list: ["efgh", "ijkl"] });
    const text = new TextDecoder("latin1").decode(file);
    for (const [name, byte] of [["abcd", 0xff], ["efgh", 0xc3], ["ijkl", 0xe2]] as const) {
      file[text.indexOf(name) + 3] = byte;
    }
    const { metadata } = readGguf(file);
    assertEquals(metadata.get("k"), "abc\ufffd");
    assertEquals(plain(metadata.get("list")), ["efg\ufffd", "ijk\ufffd"]);
  });

  it("honours general.alignment and version 2", () => {
    const content = { metadata: { "general.alignment": ggufU32(256) }, tensors: [tensor, { ...tensor, name: "b" }] };
    const { tensors } = readGguf(encodeGguf({ ...content, version: 2 }));
    assertEquals(tensors.get("b")!.offset % 256, 0);
    assertEquals(tensors.get("b")!.offset - tensors.get("a")!.offset, 256);
  });

  const names = Array.from({ length: 2 }, () => tensor);
  const bad: [name: string, file: Uint8Array, message: string][] = [
    ["an empty file", new Uint8Array(), "too few"],
    ["another magic", new Uint8Array(100), "does not start with GGUF"],
    ["2^60 tensors", patched("GGUF", 8, 8, 2n ** 60n), "tensors, more than"],
    ["more tensors than fit", patched("GGUF", 8, 8, 10000n), "tensors do not fit"],
    ["2^64 - 1 pairs", patched("GGUF", 16, 8, 2n ** 64n - 1n), "metadata pairs, more than"],
    ["a key of 2^40 bytes", patched("kkkk", -8, 8, 2n ** 40n), "a metadata key of"],
    ["an empty key", patched("kkkk", -8, 8, 0n), "a metadata key of 0 bytes"],
    ["an unknown type", patched("kkkk", 4, 4, 77n), "unknown type 77"],
    ["a string past the end", patched("vvvv", -8, 8, 5000n), "more bytes"],
    ["a string of 2^63 bytes", patched("vvvv", -8, 8, 2n ** 63n), "a string of"],
    ["2^61 strings", patched("list", 12, 8, 2n ** 61n), "strings in metadata"],
    ["more strings than fit", patched("list", 12, 8, 1000n), "do not fit"],
    ["an array of unknowns", patched("list", 8, 4, 99n), "array of the unknown type"],
    ["2^40 nested arrays", patched("list", 8, 4, 9n), "do not fit|metadata"],
    ["a key twice", encodeTwice(), "appears twice"],
    ["a tensor twice", encode({}, names), "appears twice"],
    ["a bool of 2", withBool(2), "a boolean of 2"],
    ["alignment 0", encode({ "general.alignment": "12" }), "not a power of two"],
    ["alignment 48", encode({ "general.alignment": ggufU32(48) }), "not a power of two"],
    ["5 dims", encode({}, [{ ...tensor, shape: [1, 1, 1, 2, 3] }]), "5 dims"],
    ["a dim of 0", encode({}, [{ ...tensor, shape: [0, 3], data: new Uint8Array() }]), "impossible dim 0"],
    ["deep arrays", encode({ deep: [[[[["x"]]]]] as unknown as GgufInput }), "nested deeper"],
    ["a cut tensor", encode({}).slice(0, -32), "ends after the file"],
  ];
  for (const [name, file, message] of bad) {
    it(`refuses ${name}`, () => {
      const error = assertThrows(() => readGguf(file, "bad.gguf"), MllmError);
      assertEquals([error.code, error.file], ["invalid_file", "bad.gguf"]);
      assert(error.offset !== undefined);
      assert(new RegExp(message).test(error.message), error.message);
    });
  }

  it("refuses impossible tensors", () => {
    const change = (skip: number, bytes: 4 | 8, value: bigint) => {
      const file = encode({}, [{ ...tensor, name: "tttt" }]);
      const at = new TextDecoder("latin1").decode(file).indexOf("tttt") + 4 + skip;
      const view = new DataView(file.buffer);
      if (bytes === 4) view.setUint32(at, Number(value), true);
      else view.setBigUint64(at, value, true);
      return () => readGguf(file, "bad.gguf");
    };
    assertThrows(change(4, 8, 2n ** 62n), MllmError, "impossible dim");
    assertThrows(change(4, 8, 2n ** 52n), MllmError, "more elements than any file");
    assertThrows(change(20, 4, 2n), MllmError, "do not divide into q4_0 blocks");
    assertThrows(change(20, 4, 64n), MllmError, "unknown type 64");
    assertEquals(assertThrows(change(20, 4, 16n), MllmError, "IQ2_XXS").code, "unsupported");
    assertThrows(change(24, 8, 3n), MllmError, "not a multiple of the alignment");
    assertThrows(change(24, 8, 2n ** 63n), MllmError, "ends after the file");
    assertThrows(change(24, 8, 32n), MllmError, "ends after the file");
  });

  it("refuses tensors that share bytes, other versions, big endian", () => {
    const file = encode({}, [tensor, { ...tensor, name: "bbbb" }]);
    const at = new TextDecoder("latin1").decode(file).indexOf("bbbb") + 4 + 24;
    new DataView(file.buffer).setBigUint64(at, 0n, true);
    assertThrows(() => readGguf(file), MllmError, "share bytes");
    for (const version of [0, 1, 4, 0x03000000]) {
      const code = assertThrows(() => readGguf(encodeGguf({ metadata: {}, tensors: [], version })), MllmError).code;
      assertEquals(code, "unsupported");
    }
  });

  it("reads a vocabulary of 150,000 strings fast", () => {
    const tokens = Array.from({ length: 150_000 }, (_, i) => `Ġ${(i * 7919).toString(36)}`);
    const merges = Array.from({ length: 150_000 }, (_, i) => `Ġ${i.toString(36)} ${(i * 31).toString(36)}`);
    const file = encode({ tokens, merges, types: new Int32Array(150_000) });
    readGguf(file);
    const start = performance.now();
    const { metadata } = readGguf(file);
    const ms = performance.now() - start;
    assertEquals((metadata.get("tokens") as TextList).at(149_999), tokens.at(-1));
    assert(ms < 500, `${ms} ms; 30 to 60 are usual`);
  });
});

function encodeTwice(): Uint8Array {
  const file = encode({ aaaa: "x", aaab: "y" });
  file[new TextDecoder("latin1").decode(file).indexOf("aaab") + 3] = 0x61;
  return file;
}

function withBool(value: number): Uint8Array {
  const file = encode({ flag: true });
  file[new TextDecoder("latin1").decode(file).indexOf("flag") + 8] = value;
  return file;
}

describe("openGguf", () => {
  it("joins the parts of a split model, whichever is named", async () => {
    const folder = Deno.makeTempDirSync();
    try {
      const part = (no: number, count = 2): Record<string, GgufInput> => ({
        "split.no": { type: "u16", value: no },
        "split.count": { type: "u16", value: count },
        "split.tensors.count": { type: "i32", value: 2 },
      });
      const [one, two] = [`${folder}/m-00001-of-00002.gguf`, `${folder}/m-00002-of-00002.gguf`];
      await writeGguf(one, { metadata: { ...part(0), "general.name": "m" }, tensors: [tensor] });
      const missing = await assertRejects(() => openGguf(one), MllmError, "missing");
      assertEquals([missing.code, missing.file], ["not_found", two]);
      await writeGguf(two, { metadata: part(1), tensors: [{ ...tensor, name: "b" }] });
      for (const path of [one, two]) {
        const { tensors, metadata, files } = await openGguf(path);
        assertEquals([...tensors.keys()], ["a", "b"]);
        assertEquals([tensors.get("b")!.file, metadata.get("general.name"), files], [two, "m", [one, two]]);
        assertEquals(readWeight(tensors.get("b")!), new Uint8Array(tensor.data.buffer));
      }
      await writeGguf(two, { metadata: part(0), tensors: [{ ...tensor, name: "b" }] });
      await assertRejects(() => openGguf(one), MllmError, "part 2 of 2");
      await writeGguf(two, { metadata: part(1), tensors: [tensor] });
      await assertRejects(() => openGguf(one), MllmError, "also in an earlier part");
      await writeGguf(two, { metadata: part(1), tensors: [] });
      await assertRejects(() => openGguf(one), MllmError, "1 tensors together, not 2");
      Deno.renameSync(one, `${folder}/other.gguf`);
      await assertRejects(() => openGguf(`${folder}/other.gguf`), MllmError, "one of 2 parts");
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });

  for (const name of ["llama-kquants", "llama-mixed", "llama3-rope-q8", "qwen2-legacyq", "qwen3-mixed"]) {
    const golden = goldenPath(`gguf/${name}.gguf`);
    it(`${name}: tensors dequantise to the reference rows`, { skip: skipWithout(golden) }, async () => {
      const { tensors } = await openGguf(golden!);
      const oracle = readTensors(goldenPath(`gguf/${name}.oracle.safetensors`)!);
      let compared = 0;
      for (const key of oracle.names.filter((key) => key.startsWith("deq."))) {
        const info = tensors.get(key.slice(4))!;
        const expected = oracle.floats(key);
        const actual = dequantize(info.dtype, readWeight(info), info.shape.reduce((a, b) => a * b));
        assertEquals(actual.subarray(0, expected.length), expected, key);
        compared++;
      }
      assert(compared > 0);
    });
  }
});
