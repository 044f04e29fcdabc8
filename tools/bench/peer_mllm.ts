/**
 * One process of `bench:peers` with this engine, used as a library. Takes a request (protocol.ts) as JSON, prints the
 * reply as its last line.
 */
import { x86 } from "@mllm/backend-x86";
import { loadModel } from "@mllm/models";
import {
  contextOf,
  type PeerReply,
  type PeerRequest,
  promptIds,
  residentBytes,
  shortPromptTokens,
} from "./protocol.ts";

async function run(request: PeerRequest): Promise<PeerReply> {
  const { model: path, prompts, generates, threads, level } = request;
  using model = await loadModel(path, { backend: x86, level, threads, context: contextOf(request) });
  const prompt = (count: number) => model.forward(promptIds(count), 0);
  const greedy = (logits: Float32Array) => {
    let best = 0;
    for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
    return best;
  };
  const generate = async (count: number) => {
    let id = greedy(await prompt(1));
    const start = performance.now();
    for (let i = 0; i < count; i++) id = greedy(await model.forward([id], i + 1));
    return performance.now() - start;
  };
  greedy(await prompt(shortPromptTokens));
  const firstTokenEpochMs = Date.now();
  const loadedBytes = residentBytes("VmRSS");
  const speeds: Record<string, number> = {};
  if (prompts.length > 0) await prompt(Math.min(...prompts)); // warm-up
  for (const count of prompts) {
    const start = performance.now();
    await prompt(count);
    speeds[`pp${count}`] = count / (performance.now() - start) * 1000;
  }
  if (generates.length > 0) await generate(8); // warm-up
  for (const count of generates) speeds[`tg${count}`] = count / (await generate(count)) * 1000;
  const { backend, memory } = model;
  return {
    version: "0.1.0",
    detail: `x86:${backend.device.level}`,
    firstTokenEpochMs,
    speeds,
    loadedBytes,
    peakBytes: residentBytes("VmHWM"),
    neededBytes: memory.weights + memory.kv,
  };
}

if (import.meta.main) console.log(JSON.stringify(await run(JSON.parse(Deno.args[0]))));
