import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MllmError } from "../errors.ts";
import { goldenPath, skipWithout } from "../../../../tools/testing/golden.ts";
import { openSafetensors, readSafetensors } from "./safetensors.ts";
import { encodeSafetensors, writeSafetensors } from "./safetensors_writer.ts";
import { readWeight } from "./weight_info.ts";

/** A file with this header text and this many bytes of data. */
function withHeader(header: string, dataBytes = 0, headerBytes?: number): Uint8Array {
  const json = new TextEncoder().encode(header);
  const out = new Uint8Array(8 + json.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(headerBytes ?? json.length), true);
  out.set(json, 8);
  return out;
}
const entry = (shape: unknown, range: unknown, dtype: unknown = "F32") =>
  JSON.stringify({ dtype, shape, data_offsets: range });

describe("readSafetensors", () => {
  it("reads what encodeSafetensors writes", () => {
    const a = Float32Array.of(1, 2, 3, 4, 5, 6);
    const bytes = encodeSafetensors([
      { name: "a", dtype: "f32", shape: [2, 3], data: a },
      { name: "scalar", dtype: "i64", shape: [], data: BigInt64Array.of(7n) },
      { name: "empty", dtype: "u8", shape: [0, 5], data: new Uint8Array(0) },
      { name: "__proto__", dtype: "bf16", shape: [1], data: new Uint8Array(2) },
    ], { format: "pt" });
    const { tensors, metadata } = readSafetensors(bytes, "x.safetensors");
    assertEquals([...metadata], [["format", "pt"]]);
    assertEquals([...tensors.keys()], ["a", "scalar", "empty", "__proto__"]);
    const info = tensors.get("a")!;
    assertEquals([info.dtype, info.shape, info.bytes, info.file], ["f32", [2, 3], 24, "x.safetensors"]);
    assertEquals(new Float32Array(bytes.slice(info.offset, info.offset + 24).buffer), a);
  });

  const bad: [name: string, file: Uint8Array, message: string][] = [
    ["an empty file", new Uint8Array(0), "too few"],
    ["a header longer than the file", withHeader("{}", 0, 1000), "header of 1000 bytes"],
    ["a header of 2^63 bytes", withHeader("{}", 0, 2 ** 63), "not a safetensors file"],
    ["a header that is no object", withHeader("[]"), "does not start with '{'"],
    ["broken JSON", withHeader('{"a":}'), "at byte 13"],
    ["JSON with a tail", withHeader("{}x"), "more text"],
    ["a depth bomb", withHeader(`{"a":${"[".repeat(100000)}`), "nested deeper"],
    ["a name twice", withHeader(`{"a":${entry([1], [0, 4])},"a":${entry([1], [0, 4])}}`, 4), "appears twice"],
    ["a field twice", withHeader('{"a":{"dtype":"F32","dtype":"F16"}}'), "appears twice"],
    ["an unknown dtype", withHeader(`{"a":${entry([1], [0, 4], "F33")}}`, 4), "unknown dtype"],
    ["a dtype of the prototype", withHeader(`{"a":${entry([1], [0, 4], "toString")}}`, 4), "unknown dtype"],
    ["an unknown field", withHeader(`{"a":{"x":1}}`), "unknown field"],
    ["a negative dim", withHeader(`{"a":${entry([-1], [0, 4])}}`, 4), "dim -1 is not a size"],
    ["a fractional dim", withHeader(`{"a":${entry([1.5], [0, 6])}}`, 6), "is not a size"],
    ["a dim of 2^60", withHeader(`{"a":${entry([2 ** 60], [0, 4])}}`, 4), "is not a size"],
    ["an overflow hidden by 0", withHeader(`{"a":${entry([2 ** 40, 2 ** 40, 0], [0, 0])}}`), "more elements"],
    ["too many dims", withHeader(`{"a":${entry(Array(99).fill(1), [0, 4])}}`, 4), "99 dims"],
    ["a wrong size", withHeader(`{"a":${entry([2], [0, 4])}}`, 4), "needs 8 bytes"],
    ["a range backwards", withHeader(`{"a":${entry([1], [4, 0])}}`, 4), "no range"],
    ["data after the end", withHeader(`{"a":${entry([2], [0, 8])}}`, 4), "ends at byte"],
    ["overlap", withHeader(`{"a":${entry([1], [0, 4])},"b":${entry([1], [0, 4])}}`, 4), "overlaps"],
    ["a gap", withHeader(`{"a":${entry([1], [0, 4])},"b":${entry([1], [8, 12])}}`, 12), "gap"],
    ["bytes left over", withHeader(`{"a":${entry([1], [0, 4])}}`, 5), "belong to none"],
    ["metadata that is no string", withHeader('{"__metadata__":{"a":1}}'), "not a string"],
    ["a name that is not UTF-8", withHeader("{}").with(8, 0x7b).with(9, 0x22), "JSON"],
    ["an LFS pointer", new TextEncoder().encode("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"],
    ["a web page", new TextEncoder().encode("<!DOCTYPE html><html></html>"), "web page"],
    ["a pickle", Uint8Array.of(0x80, 2, ...new Uint8Array(30)), "pickle"],
  ];
  for (const [name, file, message] of bad) {
    it(`refuses ${name}`, () => {
      const error = assertThrows(() => readSafetensors(file, "bad.safetensors"), MllmError, message);
      assertEquals(error.code, "invalid_file");
      assertEquals(error.file, "bad.safetensors");
      assert(error.offset !== undefined);
    });
  }

  it("names an fp8 dtype as unsupported", () => {
    const file = withHeader(`{"a":${entry([4], [0, 4], "F8_E4M3")}}`, 4);
    assertEquals(assertThrows(() => readSafetensors(file), MllmError, "F8_E4M3").code, "unsupported");
  });
});

describe("openSafetensors", () => {
  it("reads shards through their index, and checks it", async () => {
    const folder = Deno.makeTempDirSync();
    try {
      const write = (index: unknown) =>
        Deno.writeTextFileSync(`${folder}/m.safetensors.index.json`, JSON.stringify(index));
      await writeSafetensors(`${folder}/1.safetensors`, [{
        name: "a",
        dtype: "f32",
        shape: [1],
        data: Float32Array.of(5),
      }]);
      await writeSafetensors(`${folder}/2.safetensors`, [{
        name: "b",
        dtype: "u8",
        shape: [3],
        data: Uint8Array.of(1, 2, 3),
      }]);
      write({ metadata: {}, weight_map: { a: "1.safetensors", b: "2.safetensors" } });
      const { tensors, files } = await openSafetensors(`${folder}/m.safetensors.index.json`);
      assertEquals(files, [`${folder}/1.safetensors`, `${folder}/2.safetensors`]);
      assertEquals(readWeight(tensors.get("b")!), Uint8Array.of(1, 2, 3));
      const open = () => openSafetensors(`${folder}/m.safetensors.index.json`);
      write({ weight_map: { a: "../1.safetensors" } });
      await assertRejects(open, MllmError, "no file name of a shard");
      write({ weight_map: { a: "2.safetensors" } });
      await assertRejects(open, MllmError, "is not in this shard");
      write({ weight_map: { a: "3.safetensors" } });
      assertEquals((await assertRejects(open, MllmError, "missing")).code, "not_found");
      write({ weight_map: [] });
      await assertRejects(open, MllmError, "no object weight_map");
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });

  it("says what is wrong with a path", async () => {
    assertEquals((await assertRejects(() => openSafetensors("/no/such/file"), MllmError)).code, "not_found");
    assertEquals((await assertRejects(() => openSafetensors("."), MllmError, "a directory")).code, "invalid_file");
  });

  const golden = goldenPath("models/qwen2-untied-sharded/model.safetensors.index.json");
  it("opens the reference shards", { skip: skipWithout(golden) }, async () => {
    const { tensors } = await openSafetensors(golden!);
    assertEquals(tensors.get("lm_head.weight")!.shape, [320, 96]);
  });
});
