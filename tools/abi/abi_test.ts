import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import * as abi from "../../packages/core/src/native/abi.ts";
import { repositoryRoot } from "../workspace.ts";
import { generate, zig } from "./generate.ts";

const root = repositoryRoot();

/** A C program that does not compile where the header's layout differs from the generated TypeScript. */
function headerProgram(): string {
  const structs = {
    mllm_tensor_desc: abi.TensorDesc,
    mllm_command: abi.Command,
    mllm_program_desc: abi.ProgramDesc,
    mllm_registers: abi.Registers,
    mllm_open_options: abi.OpenOptions,
    mllm_mapped_file: abi.MappedFile,
    mllm_profile_row: abi.ProfileRow,
    mllm_backend_table: abi.Backend,
  };
  const lines = ["#include <stddef.h>", '#include "mllm.h"'];
  let count = 0;
  const check = (condition: string) => lines.push(`typedef char check_${count++}[(${condition}) ? 1 : -1];`);
  for (const [name, { size, offset }] of Object.entries(structs)) {
    check(`sizeof(${name}) == ${size}`);
    for (const [field, at] of Object.entries(offset)) {
      const snake = field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
      check(`offsetof(${name}, ${snake}) == ${at}`);
    }
  }
  for (const [field, { shift, bits }] of Object.entries(abi.LinearVariant)) {
    const name = `MLLM_LINEAR_VARIANT_${field.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
    check(`${name}_SHIFT == ${shift} && ${name}_BITS == ${bits}`);
  }
  return lines.join("\n") + "\n";
}

describe("the generated ABI", () => {
  it("is up to date: `deno task abi` writes it", async () => {
    for (const [path, text] of Object.entries(await generate())) {
      assertEquals(await Deno.readTextFile(`${root}/${path}`) === text, true, `${path} is stale: run deno task abi`);
    }
  });

  it("has a header that is valid C99 and C++, with the same layout", async () => {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${folder}/layout.c`, headerProgram());
      const flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-I", `${root}/packages/core/native`, "-c"];
      await zig(["cc", "-std=c99", ...flags, `${folder}/layout.c`, "-o", `${folder}/c.o`]);
      await zig(["c++", "-x", "c++", "-std=c++11", ...flags, `${folder}/layout.c`, "-o", `${folder}/cpp.o`]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });

  it("numbers the ops from 1 without gaps", () => {
    const rows = Object.values(abi.opTable);
    assertEquals(rows.map(({ id }) => id), rows.map((_, i) => i + 1));
  });
});
