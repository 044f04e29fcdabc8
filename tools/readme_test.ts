/** The program in the README is run as it stands there, with what the README adds to it. */
import { assert, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { repositoryRoot } from "./workspace.ts";

const root = repositoryRoot();

describe("README", () => {
  it("its program streams a reply, and what it adds continues a text", async () => {
    const readme = Deno.readTextFileSync(`${root}/README.md`);
    const program = [...readme.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, code]) => code).join("");
    const file = await Deno.makeTempFile({ dir: `${root}/tools`, prefix: "readme-", suffix: ".ts" });
    try {
      await Deno.writeTextFile(file, program);
      const args = ["run", "--no-prompt", "--check", "--allow-read", "--allow-ffi", file];
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: root }).output();
      assert(success, new TextDecoder().decode(stderr));
      const output = new TextDecoder().decode(stdout);
      assertMatch(output, /^[^]{11,}\n\(\d+ tokens\)\n[^]*\w/);
    } finally {
      await Deno.remove(file);
    }
  });
});
