import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import { parseConversation, readConversation, writeConversation } from "./conversation_file.ts";

const TALK = {
  model: "m",
  system: "s",
  messages: [{ role: "user" as const, content: "hi" }, { role: "assistant" as const, content: "hello" }],
  settings: { temperature: 0.5 },
};

describe("conversation files", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await Deno.makeTempDir();
  });
  afterEach(() => Deno.remove(folder, { recursive: true }));

  it("come back as they were", async () => {
    await writeConversation(`${folder}/a.json`, TALK);
    assertEquals(readConversation(`${folder}/a.json`), TALK);
    assertEquals(Array.from(Deno.readDirSync(folder), (entry) => entry.name), ["a.json"]);
  });

  it("replace nothing unless told", async () => {
    await Deno.writeTextFile(`${folder}/a`, "mine");
    await assertRejects(() => writeConversation(`${folder}/a`, TALK), MllmError, "/save! ");
    assertEquals(await Deno.readTextFile(`${folder}/a`), "mine");
    await writeConversation(`${folder}/a`, TALK, { replace: true });
    assertEquals(readConversation(`${folder}/a`).messages.length, 2);
    await assertRejects(() => writeConversation(folder, TALK, { replace: true }), MllmError, "folder");
    await assertRejects(() => writeConversation(`${folder}/none/a`, TALK), MllmError, "can't be written");
    assertThrows(() => readConversation(folder), MllmError, "a directory, not a file");
    assertThrows(() => readConversation(`${folder}/none`), MllmError, "no such file");
  });

  it("are checked field by field", () => {
    const good = { format: "mllm-conversation", version: 1, messages: [], settings: {} };
    assertEquals(parseConversation(JSON.stringify(good), "f").messages, []);
    const bad: [unknown, string][] = [
      ["{", "not JSON"],
      [[], '"format"'],
      [{ ...good, version: 2 }, "version is 2"],
      [{ ...good, messages: {} }, '"messages" is not a list'],
      [{ ...good, messages: [{ role: "assistant", content: "x" }] }, 'where "user" is due'],
      [{ ...good, messages: [{ role: "user", content: 1 }] }, "message 0 has no text"],
      [{ ...good, messages: [{ role: "user", content: "x" }] }, "its last message has no reply"],
      [{ ...good, system: 1 }, '"system"'],
      [{ ...good, settings: [] }, '"settings"'],
    ];
    for (const [json, text] of bad) {
      const source = typeof json === "string" ? json : JSON.stringify(json);
      assertThrows(() => parseConversation(source, "f"), MllmError, text);
    }
  });
});
