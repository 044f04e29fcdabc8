import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { MllmError } from "@mllm/core";
import { FakeHost } from "../testing/fake_host.ts";
import { assetPath, cacheFolder } from "./assets.ts";
import { chatMain } from "./chat/main.ts";
import { openProgram } from "./open_engine.ts";

describe("assetPath", () => {
  let root: string;
  let virtual: string;
  let cache: string;
  beforeEach(async () => {
    root = await Deno.makeTempDir();
    virtual = `${root}/virtual`;
    cache = `${root}/home/.cache/mllm`;
    await Deno.mkdir(`${virtual}/model/deep`, { recursive: true });
    await Deno.writeTextFile(`${virtual}/library.so`, "library");
    await Deno.writeTextFile(`${virtual}/model/config.json`, "{}");
    await Deno.writeTextFile(`${virtual}/model/deep/weights`, "weights");
  });
  afterEach(async () => {
    await Deno.chmod(`${root}/home`, 0o755).catch(() => {});
    await Deno.remove(root, { recursive: true });
  });
  const options = () => ({ isVirtual: true, cacheFolder: cache });

  it("is the source itself in a checkout", async () => {
    assertEquals(
      await assetPath(`${virtual}/library.so`, { isVirtual: false, cacheFolder: undefined }),
      `${virtual}/library.so`,
    );
  });

  it("writes a file out under its content's hash, once", async () => {
    const path = await assetPath(`${virtual}/library.so`, options());
    assertEquals(path.startsWith(`${cache}/`), true);
    assertEquals(path.endsWith("/library.so"), true);
    assertEquals(await Deno.readTextFile(path), "library");
    const { mtime } = await Deno.stat(path);
    assertEquals(await assetPath(`${virtual}/library.so`, options()), path);
    assertEquals((await Deno.stat(path)).mtime, mtime);
    await Deno.writeTextFile(`${virtual}/library.so`, "library 2");
    const second = await assetPath(`${virtual}/library.so`, options());
    assertEquals(second === path, false);
    assertEquals(await Deno.readTextFile(path), "library");
  });

  it("writes a folder out and leaves nothing else behind", async () => {
    const path = await assetPath(`${virtual}/model`, options());
    assertEquals(await Deno.readTextFile(`${path}/deep/weights`), "weights");
    const folder = path.slice(0, path.lastIndexOf("/"));
    assertEquals(Array.from(Deno.readDirSync(folder), (entry) => entry.name), ["model"]);
  });

  it("replaces what was damaged", async () => {
    for (const name of ["library.so", "model"]) {
      const path = await assetPath(`${virtual}/${name}`, options());
      const file = name === "model" ? `${path}/deep/weights` : path;
      await Deno.writeTextFile(file, "damaged");
      assertEquals(await assetPath(`${virtual}/${name}`, options()), path);
      assertEquals((await Deno.readTextFile(file)).startsWith("damaged"), false);
    }
  });

  it("several programs at once agree", async () => {
    const paths = await Promise.all(Array.from({ length: 8 }, () => assetPath(`${virtual}/model`, options())));
    assertEquals(new Set(paths).size, 1);
    assertEquals(await Deno.readTextFile(`${paths[0]}/config.json`), "{}");
  });

  it("says what to do where nothing can be written", async () => {
    await Deno.mkdir(`${root}/home`);
    await Deno.writeTextFile(`${root}/home/.cache`, "a file is in the way");
    const error = await assertRejects(
      () => assetPath(`${virtual}/library.so`, options()),
      MllmError,
      "can't be unpacked",
    );
    assertStringIncludes(error.message, "MLLM_CACHE");
    await assertRejects(
      () => assetPath(`${virtual}/library.so`, { isVirtual: true, cacheFolder: undefined }),
      MllmError,
      "MLLM_CACHE",
    );
    await assertRejects(() => assetPath(`${virtual}/none`, options()), MllmError, "lacks a part");
  });
});

describe("a program whose parts have to be unpacked", () => {
  it("answers from what it has unpacked", async () => {
    const folder = await Deno.makeTempDir();
    try {
      const host = new FakeHost({ env: { MLLM_CACHE: folder } });
      const program = openProgram(host, "mllm-chat", true);
      const code = await chatMain(["-p", "hello", "--greedy", "-n", "8"], host, program);
      assertEquals([code, host.out.trim().length > 3], [0, true], host.err);
      const unpacked = Array.from(Deno.readDirSync(folder), ({ name }) => [...Deno.readDirSync(`${folder}/${name}`)]);
      const names = unpacked.flat().map(({ name }) => name).sort();
      assertEquals(names.length, 2);
      assertMatch(names[0], /mllm_x86\.(so|dylib|dll)$/);
      assertEquals(names[1], "model.gguf");
    } finally {
      // Windows keeps a loaded library's file.
      await Deno.remove(folder, { recursive: true }).catch((error) => {
        if (Deno.build.os !== "windows") throw error;
      });
    }
  });
});

describe("cacheFolder", () => {
  it("follows MLLM_CACHE, then each system's custom", () => {
    const env = (values: Record<string, string>) => (name: string) => values[name];
    assertEquals(cacheFolder(env({ MLLM_CACHE: "/c", HOME: "/h" }), "linux"), "/c");
    assertEquals(cacheFolder(env({ HOME: "/h" }), "linux"), "/h/.cache/mllm");
    assertEquals(cacheFolder(env({ HOME: "/h", XDG_CACHE_HOME: "/x" }), "linux"), "/x/mllm");
    assertEquals(cacheFolder(env({ HOME: "/h" }), "darwin"), "/h/Library/Caches/mllm");
    assertEquals(cacheFolder(env({ LOCALAPPDATA: "C:\\l" }), "windows"), "C:\\l\\mllm\\cache");
    assertEquals(cacheFolder(env({}), "linux"), undefined);
  });
});
