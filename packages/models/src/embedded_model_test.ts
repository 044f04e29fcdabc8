import { x86 } from "@mllm/backend-x86";
import { assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { embeddedModelPath } from "./embedded_model.ts";
import { loadModel } from "./load_model.ts";

/** What people type first, and what a sensible reply has in it. */
const FIRST_WORDS: [texts: string[], reply: RegExp][] = [
  [["Hello", "hello", "Hi", "hi", "hey", "Hey!", "Hi there", "Good morning"], /^(hello|hi|good morning)\b/i],
  [["How are you?"], /fine/i],
  [["Who are you?", "what are you"], /demonstration model/i],
  [["What can you do?", "help"], /questions about this project/i],
  [["How do I exit?", "how do I leave the chat", "quit"], /\/bye/],
  [["bye", "Goodbye!"], /bye/i],
  [["thanks", "Thank you!"], /welcome/i],
  [["What is the capital of France?"], /don't know/i],
];

describe("embedded model", () => {
  it("answers what people type first", async () => {
    using model = await loadModel(embeddedModelPath, { backend: x86, threads: 2, context: 256 });
    for (const [texts, expected] of FIRST_WORDS) {
      for (const text of texts) {
        let reply = "";
        for await (const piece of model.chat().send(text, { sampling: { temperature: 0 } })) reply += piece;
        assertMatch(reply, expected, text);
      }
    }
  });
});
