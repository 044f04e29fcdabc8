import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { encodeLinearVariant, KernelSelector, MllmError } from "@mllm/core";
import { tunedPath, TunedStore } from "./tuned_store.ts";
import {
  findTable,
  type Measurement,
  readTables,
  type TunedKey,
  tunedRows,
  type TunedTable,
  writeTables,
} from "./tuned_table.ts";

const key: TunedKey = { backend: "x86", cpu: "A CPU", level: "avx2", threads: 2, library: "ab".repeat(32) };
const shape = { op: "linear", dtype: "q4_0", x: "q8a", n: 3072, k: 1024 } as const;
const measurements: Measurement[] = [
  { stage: "decode", ...shape, variant: { run: 8, prefetch: 4 }, gain: 1.05 },
  { stage: "few rows", ...shape, variant: { fewRows: 6 }, gain: 1.2 },
  { stage: "prefill", ...shape, variant: { tileRows: 12 }, gain: 1.1 },
  { stage: "threads", ...shape, threads: 3, gain: 1.07 },
  { stage: "decode", op: "attention", dtype: "f16", x: "f32", n: 2048, threads: 1, gain: 1.5 },
  { stage: "prefill", op: "add", dtype: "f32", x: "f32", n: 1024, gain: 1 },
];
const table: TunedTable = { key, day: "2026-11-25", measurements };

async function inFolder(use: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

describe("tuned tables", () => {
  it("go through a file and back", () =>
    inFolder((folder) => {
      const store = new TunedStore(`${folder}/deep/er/tuned.json`);
      assertEquals(store.read(), []);
      store.write([table]);
      assertEquals(store.read(), [table]);
      store.write([table, { ...table, key: { ...key, threads: 4 } }]);
      assertEquals(store.read().map(({ key }) => key.threads), [2, 4]);
      assertEquals([...Deno.readDirSync(`${folder}/deep/er`)].map(({ name }) => name), ["tuned.json"]);
    }));

  it("become rows of the selector, one per kind and phase", () => {
    const standard = new KernelSelector([
      { op: "linear", phase: "decode", variant: encodeLinearVariant({ mode: "gemv" }), threads: 0, reason: "GEMV" },
      { op: "linear", variant: encodeLinearVariant({ fewRows: 9, run: 2 }), threads: 5, reason: "of this CPU" },
    ], "avx2");
    const rows = tunedRows(table, standard);
    const selector = new KernelSelector(rows, "avx2");
    const query = { ...shape, phase: "decode", rows: 1, elements: 3072 * 1024 } as const;
    assertEquals(rows.length, 3);
    assertEquals(selector.choose(query).variant, encodeLinearVariant({ mode: "gemv", run: 8, prefetch: 4 }));
    const prefill = selector.choose({ ...query, phase: "prefill", rows: 512 });
    assertEquals(prefill.variant, encodeLinearVariant({ fewRows: 6, tileRows: 12, run: 2 }), "the default's, changed");
    assertEquals([prefill.threads, prefill.tuned], [3, true]);
    assertMatch(prefill.reason, /1\.20 × .* "few rows", 1\.10 × .* "prefill", 1\.07 × .* "threads", on 2026-11-25/);
    const attention = {
      op: "attention",
      dtype: "f16",
      x: "f32",
      phase: "decode",
      rows: 1,
      elements: 1,
      n: 2048,
    } as const;
    assertEquals(selector.choose(attention).threads, 1);
    for (const other of [{ n: 3073 }, { k: 1023 }, { x: "f32" }, { dtype: "q8_0" }] as const) {
      assertEquals(selector.choose({ ...query, ...other }).tuned, undefined);
    }
    assertEquals(new KernelSelector(rows, "avx512vnni").choose(query).tuned, undefined);
  });

  it("count only where everything agrees, and say what does not", () => {
    assertEquals(findTable([{ ...table, key: { ...key, threads: 9 } }, table], key), table);
    const reasons: [Partial<TunedKey>, string][] = [
      [{ cpu: "Another" }, "it was made for cpu A CPU, not Another"],
      [{ level: "portable" }, "it was made for level avx2, not portable"],
      [{ threads: 4 }, "it was made for threads 2, not 4"],
      [{ library: "cd".repeat(32) }, "it was made with another build of the kernels"],
    ];
    for (const [change, reason] of reasons) assertEquals(findTable([table], { ...key, ...change }), reason);
    assertEquals(findTable([], key), "it holds no table");
  });

  it("refuse a damaged file with its place and what to do", () => {
    const good = JSON.parse(writeTables([table]));
    const broken: [string, (json: typeof good) => unknown][] = [
      ["is no object", () => []],
      ["its format is 1, not 2", (json) => ({ ...json, format: 1 })],
      ["tables is no list", (json) => ({ ...json, tables: {} })],
      ["threads is not 1 to", (json) => (json.tables[0].key.threads = 0, json)],
      ["cpu is wrong", (json) => (json.tables[0].key.cpu = "a\u001b[31m", json)],
      ["library is wrong", (json) => (json.tables[0].key.library = "x", json)],
      ["op is unknown", (json) => (json.tables[0].measurements[0].op = "conv", json)],
      ["op is unknown", (json) => (json.tables[0].measurements[0].op = "toString", json)],
      ["mode is unknown", (json) => (json.tables[0].measurements[0].variant.mode = "fast", json)],
      ["a size of a variant is out of range", (json) => (json.tables[0].measurements[0].variant.run = 5000, json)],
      ["add has no variants", (json) => (json.tables[0].measurements[5].variant = {}, json)],
      ["gain is not", (json) => (json.tables[0].measurements[0].gain = 0.5, json)],
      ["n is not", (json) => (json.tables[0].measurements[0].n = 1.5, json)],
      ["there twice", (json) => (json.tables[0].measurements.push(json.tables[0].measurements[0]), json)],
    ];
    for (const [what, damage] of broken) {
      const text = JSON.stringify(damage(structuredClone(good)));
      const error = assertThrows(() => readTables(text, "/x/tuned.json"), MllmError, what);
      assertStringIncludes(error.message, "(/x/tuned.json). `mllm tune --force`");
    }
    for (const text of ["", "{", writeTables([table]).slice(0, 300)]) {
      assertThrows(() => readTables(text, "f"), MllmError, "it is no JSON");
    }
  });

  it("lie where MLLM_TUNED says, else beside the history", () => {
    const path = (env: Record<string, string>) => tunedPath((name) => env[name]);
    assertEquals(path({ MLLM_TUNED: "/a/b.json", HOME: "/h" }), "/a/b.json");
    assertEquals(path({}), undefined);
    if (Deno.build.os !== "linux") return;
    assertEquals(path({ HOME: "/h" }), "/h/.local/state/mllm/tuned.json");
    assertEquals(path({ HOME: "/h", XDG_STATE_HOME: "/s" }), "/s/mllm/tuned.json");
  });

  it("that can't be read or written are an error with the reason", () =>
    inFolder((folder) => {
      Deno.mkdirSync(`${folder}/tuned.json`);
      const store = new TunedStore(`${folder}/tuned.json`);
      assertEquals(assertThrows(() => store.read(), MllmError).code, "io");
      const error = assertThrows(() => store.write([table]), MllmError, "can't be written");
      store.checkWritable();
      assert(error.message.includes("MLLM_TUNED names another file"));
      assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["tuned.json"], "nothing is left behind");
    }));

  it("are none where no file of ours can be, which only writing minds", () =>
    inFolder((folder) => {
      Deno.writeTextFileSync(`${folder}/file`, "");
      const paths = [`${folder}/file/state/tuned.json`, `${folder}/${"x".repeat(300)}/tuned.json`];
      if (Deno.build.os === "linux") paths.push("/proc/.local/state/mllm/tuned.json"); // Deno asks for --allow-all
      for (const path of paths) {
        const store = new TunedStore(path);
        assertEquals(store.read(), []);
        assertThrows(() => store.checkWritable(), MllmError, "the file can't be written: ");
      }
      assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["file"]);
    }));
});
