/**
 * Runs `packages/models/embedded/evaluation.json` through the engine: how many cases pass, by category.
 *
 *     deno run -A tools/embedded_model/evaluate.ts [--activations f32] [--verbose]
 */
import { x86 } from "@mllm/backend-x86";
import { embeddedModelPath, loadModel } from "@mllm/models";

interface Case {
  category: string;
  /** User turns in order; `accept` holds regular expressions, any case, which the reply all matches. */
  turns: { user: string; accept?: string[] }[];
}

const activations = Deno.args.includes("f32") ? "f32" : "i8";
const verbose = Deno.args.includes("--verbose");
const { cases }: { cases: Case[] } = JSON.parse(
  await Deno.readTextFile(new URL("../../packages/models/embedded/evaluation.json", import.meta.url)),
);
using model = await loadModel(embeddedModelPath, { backend: x86, activations, threads: 1 });

const counts = new Map<string, { passed: number; of: number }>();
for (const { category, turns } of cases) {
  const chat = model.chat();
  let passed = true;
  for (const { user, accept = [] } of turns) {
    let reply = "";
    for await (const text of chat.send(user, { sampling: { temperature: 0 } })) reply += text;
    passed &&= accept.every((pattern) => new RegExp(pattern, "i").test(reply));
  }
  if (verbose && !passed) console.log(category, chat.messages.map((message) => message.content));
  for (const name of [category, "all"]) {
    const count = counts.get(name) ?? { passed: 0, of: 0 };
    counts.set(name, { passed: count.passed + Number(passed), of: count.of + 1 });
  }
}
console.table(Object.fromEntries(counts));
