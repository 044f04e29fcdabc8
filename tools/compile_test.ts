import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertMatch } from "@std/assert";
import { compileArguments, explainFailure } from "./compile.ts";
import { repositoryRoot } from "./workspace.ts";

describe("compile", () => {
  it("includes only what is there", () => {
    const root = repositoryRoot();
    const args = compileArguments(root, "out");
    assertEquals(args[0], "compile");
    assertEquals(args.at(-1), "packages/apps/chat.ts");
    args.forEach((arg, i) => {
      if (arg === "--include") Deno.statSync(`${root}/${args[i + 1]}`);
    });
    assertEquals(compileArguments("nowhere", "out").includes("--include"), false);
  });

  it("says what is missing when the runtime can't be downloaded", () => {
    const download = "Download https://host/denort.zip\n";
    const missing = explainFailure(
      `${download}error: Writing the executable\n\nCaused by:\n    0: Setting up base binary.\n    1: dns error`,
    );
    assertMatch(missing, /^deno compile needs [^\n]+DENORT_BIN=PATH[^\n]+$/);
    assertEquals(explainFailure(`${download}error: No space\n`), `deno compile failed:\n${download}error: No space`);
  });
});
