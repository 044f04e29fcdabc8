import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { History, HISTORY_ENTRIES_MAX, HistoryFile, stateFolder } from "./history.ts";

describe("History", () => {
  let folder: string;
  beforeEach(() => {
    folder = Deno.makeTempDirSync();
  });
  afterEach(() => Deno.removeSync(folder, { recursive: true }));

  it("lives in a file of the user's own", () => {
    const path = `${folder}/deep/history`;
    const first = new History(new HistoryFile(path));
    first.add("one");
    first.add("one");
    first.add("two\nlines");
    first.add("   ");
    const second = new History(new HistoryFile(path));
    assertEquals(second.entries, ["one", "two\nlines"]);
    if (Deno.build.os !== "windows") assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
  });

  it("forgets the oldest, in memory and in the file", () => {
    const path = `${folder}/history`;
    const history = new History(new HistoryFile(path));
    for (let i = 0; i < 2 * HISTORY_ENTRIES_MAX + 5; i++) history.add(`entry ${i}`);
    assertEquals(history.entries.length, HISTORY_ENTRIES_MAX);
    const lines = Deno.readTextFileSync(path).trim().split("\n");
    assertEquals(lines.length < 2 * HISTORY_ENTRIES_MAX, true);
    assertEquals(lines.at(-1), JSON.stringify(`entry ${2 * HISTORY_ENTRIES_MAX + 4}`));
  });

  it("passes over torn lines", () => {
    Deno.writeTextFileSync(`${folder}/history`, '"a"\n"torn\n42\n"b"\n');
    assertEquals(new History(new HistoryFile(`${folder}/history`)).entries, ["a", "b"]);
  });

  it("goes on without a file that can't be written", () => {
    Deno.writeTextFileSync(`${folder}/file`, "");
    const file = new HistoryFile(`${folder}/file/history`);
    const history = new History(file);
    history.add("kept in memory");
    assertEquals(history.entries, ["kept in memory"]);
    assertEquals(typeof file.failure, "string");
  });

  it("walks back and forth and keeps the draft", () => {
    const history = new History();
    history.add("a");
    history.add("b");
    assertEquals(history.next(), undefined);
    assertEquals(history.previous("draft"), "b");
    assertEquals(history.previous("b"), "a");
    assertEquals(history.previous("a"), undefined);
    assertEquals([history.next(), history.next(), history.next()], ["b", "draft", undefined]);
  });
});

describe("stateFolder", () => {
  it("follows each system's custom", () => {
    const env = (values: Record<string, string>) => (name: string) => values[name];
    assertEquals(stateFolder(env({ HOME: "/h" }), "linux"), "/h/.local/state/mllm");
    assertEquals(stateFolder(env({ HOME: "/h", XDG_STATE_HOME: "/s" }), "linux"), "/s/mllm");
    assertEquals(stateFolder(env({ HOME: "/h", XDG_STATE_HOME: "relative" }), "linux"), "/h/.local/state/mllm");
    assertEquals(stateFolder(env({ HOME: "/h" }), "darwin"), "/h/Library/Application Support/mllm");
    assertEquals(stateFolder(env({ LOCALAPPDATA: "C:\\u" }), "windows"), "C:\\u\\mllm");
    assertEquals(stateFolder(env({}), "linux"), undefined);
  });
});
