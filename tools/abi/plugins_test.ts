import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { MllmError, openBackend, probeBackend } from "../../packages/core/mod.ts";
import { arm } from "../../packages/backend-arm/mod.ts";
import { cann } from "../../packages/backend-cann/mod.ts";
import { qnn } from "../../packages/backend-qnn/mod.ts";
import { x86 } from "../../packages/backend-x86/mod.ts";

describe("backend plugins", () => {
  for (const plugin of [arm, qnn, cann]) {
    it(`${plugin.name} says what is missing and what to do`, async () => {
      const device = await probeBackend(plugin);
      assertEquals(device.available, false);
      assertMatch(device.reason!, new RegExp(`^backend ${plugin.name} .+\\. Use the x86 backend`));
      const error = await assertRejects(() => openBackend(plugin), MllmError);
      assertEquals(error.code, "unsupported");
    });
  }

  it("x86 has a reason for every choice and ends with a row that always fits", () => {
    for (const row of x86.kernelRows) assert(row.reason.length > 20 && row.variant >= 0 && row.threads >= 0);
    const { op, variant, threads, reason, ...conditions } = x86.kernelRows.at(-1)!;
    assertEquals([op, variant, threads, conditions], ["*", 0, 0, {}], reason);
  });

  it("x86 has rows of their own for CPUs that it names as cpuid's names are", async () => {
    const zig = await Deno.readTextFile(
      new URL("../../packages/backend-x86/zig/microarchitecture.zig", import.meta.url),
    );
    const named = new Set(x86.kernelRows.flatMap(({ cpu }) => cpu ?? []));
    for (const cpu of ["zen3", "zen5", "sapphire-rapids", "skylake-x", "alder-lake"]) assert(named.has(cpu), cpu);
    for (const cpu of named) assert(zig.includes(`"${cpu}"`), cpu);
    for (const { level } of x86.kernelRows) assert(level === undefined || x86.levels.includes(level), level);
  });

  it("x86 names the register tiles and the bound of rows that its kernels have", async () => {
    const file = new URL("../../packages/core/native/kernels/linear_i8.zig", import.meta.url);
    const [, levels] = /const shapes: .* \{\n((?: {4}\..*\n)+)\};/.exec(await Deno.readTextFile(file))!;
    const sizes = Object.fromEntries(
      levels.trim().split("\n").flatMap((line) => {
        const [names, rows] = line.split(" => ");
        return names.split(",").map((
          name,
        ) => [name.trim().slice(1), [...rows.matchAll(/\.rows = (\d+)/g)].map(([, n]) => Number(n))]);
      }),
    );
    assertEquals(x86.tileRows, { ...sizes, amx: sizes.avx512vnni });
    assertEquals(Object.keys(x86.tileRows!).sort(), x86.levels.toSorted());
    const amx = await Deno.readTextFile(new URL("../../packages/core/native/kernels/linear_amx.zig", import.meta.url));
    assertEquals(x86.linearThreshold, { amx: Number(/pub const rows_min = (\d+);/.exec(amx)![1]) });
  });

  it("x86 refuses an unknown level by name", async () => {
    const error = await assertRejects(() => openBackend(x86, { level: "avx9" }), MllmError, '"avx9"');
    assertMatch(error.message, /portable/);
  });
});
