import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertStringIncludes } from "@std/assert";
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
    assertStringIncludes(
      explainFailure("error: sending request for url (https://host/denort.zip): dns error"),
      "DENORT_BIN",
    );
    assertEquals(explainFailure("error: Cannot find module"), "deno compile failed; its output is above");
  });
});
