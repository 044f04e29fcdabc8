/**
 * Measures node-llama-cpp (npm, prebuilt llama.cpp) as llama-bench does: prompt processing of P random tokens and
 * generation of N tokens, after one warm-up. Prints one JSON line. Run by Node from a folder where node-llama-cpp is
 * installed: node peer_node_llama_cpp.mjs MODEL P N REPETITIONS THREADS
 */
import { pathToFileURL } from "node:url";

const [model, p, n, repetitions, threads] = process.argv.slice(2);
const { getLlama, LlamaLogLevel } = await import(
  pathToFileURL(`${process.cwd()}/node_modules/node-llama-cpp/dist/index.js`).href
);
const promptCount = Number(p), generateCount = Number(n);
const loadStart = performance.now();
const llama = await getLlama({
  gpu: false,
  build: "never",
  logLevel: LlamaLogLevel.error,
  maxThreads: Number(threads),
});
const loaded = await llama.loadModel({ modelPath: model, gpuLayers: 0 });
const context = await loaded.createContext({
  contextSize: promptCount + generateCount + 64,
  batchSize: 512,
  threads: Number(threads),
  flashAttention: true,
});
const sequence = context.getSequence();
const vocabulary = Math.min(loaded.fileInfo.metadata.tokenizer?.ggml?.tokens?.length ?? 32000, 100000);
const randomTokens = (count) => Array.from({ length: count }, (_, i) => 1000 + (i * 7919) % (vocabulary - 2000));

async function prompt() {
  await sequence.clearHistory();
  const start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(randomTokens(promptCount));
  return performance.now() - start;
}

async function generate(count) {
  await sequence.clearHistory();
  let done = 0;
  let start = 0;
  for await (const _ of sequence.evaluate([1234], { temperature: 0, yieldEogToken: true })) {
    if (done === 0) start = performance.now(); // the first one belongs to the prompt
    if (done++ === count) break;
  }
  if (done < count) throw new Error(`the peer ended after ${done} of ${count} tokens`);
  return performance.now() - start;
}

await prompt();
const loadToFirstMs = performance.now() - loadStart;
await generate(8);
const result = { pp: [], tg: [], loadToFirstMs, rssBytes: 0 };
for (let i = 0; i < Number(repetitions); i++) {
  if (promptCount > 0) result.pp.push(promptCount / (await prompt()) * 1000);
  if (generateCount > 0) result.tg.push(generateCount / (await generate(generateCount)) * 1000);
}
result.rssBytes = process.memoryUsage().rss;
console.log(JSON.stringify(result));
process.exit(0);
