/** The program in the README is run as it stands there. */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { repositoryRoot } from "./workspace.ts";

const root = repositoryRoot();

describe("README", () => {
  it("its program streams a reply", async () => {
    const [, program] = /```ts\n([\s\S]*?)```/.exec(Deno.readTextFileSync(`${root}/README.md`))!;
    const file = await Deno.makeTempFile({ dir: `${root}/tools`, prefix: "readme-", suffix: ".ts" });
    try {
      await Deno.writeTextFile(file, program);
      const args = ["run", "--no-prompt", "--check", "--allow-read", "--allow-ffi", file];
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: root }).output();
      assert(success, new TextDecoder().decode(stderr));
      const [reply, count] = new TextDecoder().decode(stdout).trimEnd().split(/\n(?=\(\d+ tokens\)$)/);
      assert(reply.length > 10, `the reply is ${JSON.stringify(reply)}`);
      assertEquals(/^\((\d+) tokens\)$/.test(count), true);
    } finally {
      await Deno.remove(file);
    }
  });
});
