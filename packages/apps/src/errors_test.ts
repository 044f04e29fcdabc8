import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { MllmError } from "@mllm/core";
import { COMMAND_WORDS, errorLine } from "./errors.ts";

describe("errors", () => {
  const next = "Start again with `chat.clear()`, or load the model with a larger `context`";
  const full = new MllmError("invalid_argument", "the context is full", { next });

  it("speak of the library's options and calls as the programs have them", () => {
    const end = "or load the model with a larger --context";
    assertEquals(errorLine(full), `mllm: the context is full. Start again with a new run, ${end}`);
    assertEquals(errorLine(full, COMMAND_WORDS), `mllm: the context is full. Start again with /clear, ${end}`);
    const own = new MllmError("io", "`mllm tune` of `toString`");
    assertEquals(errorLine(own), "mllm: `mllm tune` of `toString`");
  });
});
