/**
 * One process of `bench:peers` with node-llama-cpp (npm, prebuilt llama.cpp): the same as peer_mllm.ts. Run by Node
 * from a folder where node-llama-cpp is installed.
 */
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const request = JSON.parse(process.argv.at(-1));
const packageFolder = `${process.cwd()}/node_modules/node-llama-cpp`;
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(`${packageFolder}/dist/index.js`).href);
const { prompts, generates, threads } = request;
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: threads });
const model = await llama.loadModel({ modelPath: request.model, gpuLayers: 0 });
const context = await model.createContext({
  contextSize: Math.max(8, ...prompts, ...generates) + 64,
  batchSize: 512,
  threads,
  flashAttention: true,
});
const sequence = context.getSequence();
const promptIds = (count) => Array.from({ length: count }, (_, i) => 1000 + (i * 7919) % 30_000);

async function prompt(count) {
  await sequence.clearHistory();
  const start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(promptIds(count));
  return performance.now() - start;
}

async function generate(ids, count) {
  await sequence.clearHistory();
  let done = 0;
  let start = 0;
  for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    if (done === 0) start = performance.now(); // the first one belongs to the prompt
    if (done++ === count) break;
  }
  if (done < count) throw new Error(`the peer ended after ${done} of ${count} tokens`);
  return performance.now() - start;
}

await generate(promptIds(8), 0);
const firstTokenEpochMs = Date.now();
const loadedBytes = residentBytes("VmRSS");
const speeds = {};
if (prompts.length > 0) await prompt(Math.min(...prompts)); // warm-up
for (const count of prompts) speeds[`pp${count}`] = count / (await prompt(count)) * 1000;
if (generates.length > 0) await generate([1000], 8); // warm-up
for (const count of generates) speeds[`tg${count}`] = count / (await generate([1000], count)) * 1000;

function residentBytes(field) {
  try {
    const [, kib] = new RegExp(`^${field}:\\s*(\\d+) kB$`, "m").exec(readFileSync("/proc/self/status", "utf8"));
    return Number(kib) * 1024;
  } catch {
    return process.memoryUsage().rss;
  }
}

const { version } = JSON.parse(readFileSync(`${packageFolder}/package.json`, "utf8"));
// The system info names the CPU features that the loaded variant of ggml was compiled with.
const detail = (llama.systemInfo ?? "").replaceAll(/\s+/g, " ").trim();
const peakBytes = residentBytes("VmHWM");
console.log(JSON.stringify({ version, detail, firstTokenEpochMs, speeds, loadedBytes, peakBytes }));
process.exit(0);
