/** The programs over the fake engine. */
import type { ChatProgram } from "../src/chat/main.ts";
import { FakeEngine, type FakeOptions } from "./fake_model.ts";

/** A program whose demonstration model is the fake. */
export function fakeProgram(options: FakeOptions = {}): ChatProgram & { engine: FakeEngine } {
  return { engine: new FakeEngine(options), findEmbeddedModel: () => Promise.resolve("fake"), command: "chat" };
}
