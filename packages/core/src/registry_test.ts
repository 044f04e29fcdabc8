import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { testPlugin } from "../testdata/backend.ts";
import { type BackendPlugin, openBackend, probeBackend } from "./backend.ts";
import { MllmError } from "./errors.ts";
import { BackendRegistry } from "./registry.ts";

const at = (path: string): BackendPlugin => ({ ...testPlugin, name: "broken", library: () => Promise.resolve(path) });

describe("BackendRegistry", () => {
  const registry = new BackendRegistry([testPlugin, at("/nowhere/lib.so")]);

  it("opens by name and level", async () => {
    const { levels } = await probeBackend(testPlugin);
    for (const level of levels) {
      using backend = await registry.open(`${testPlugin.name}:${level}`, { threads: 1 });
      assertEquals([backend.device.level, backend.threads, backend.activations], [level, 1, "i8"]);
    }
  });

  it("names what there is", async () => {
    assertThrows(() => registry.get("tpu"), MllmError, testPlugin.name);
    assertThrows(() => registry.register(testPlugin), MllmError, "twice");
    await assertRejects(() => registry.open(`${testPlugin.name}:mmx`), MllmError, "mmx");
  });

  it("probes without throwing", async () => {
    const found = await registry.probe();
    assertEquals(found.get(testPlugin.name)?.available, true);
    assert((found.get(testPlugin.name)?.cores ?? 0) >= 1);
    assertStringIncludes(found.get("broken")?.reason ?? "", "missing");
  });

  it("refuses files that are no backend", async () => {
    const path = await Deno.makeTempFile();
    await Deno.writeTextFile(path, "not a library");
    const error = await assertRejects(() => openBackend(at(path)), MllmError, "no backend library");
    assertEquals([error.code, error.file], ["unsupported", path]);
    await Deno.remove(path);
    const missing = await assertRejects(() => openBackend(at(path)), MllmError, "missing");
    assertEquals(missing.code, "not_found");
  });
});
