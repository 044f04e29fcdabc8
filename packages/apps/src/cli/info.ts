/** `mllm info`: what a model is and what it needs, without loading it. */
import { formatMiB } from "@mllm/core";
import type { ModelSummary } from "../engine.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { type Command, JSON_OPTION, MODEL_HINT } from "./command.ts";

/** Longest text of a config value; some hold whole token lists. */
const VALUE_LENGTH_MAX = 100;

/** Tensors by element type: count, elements, bytes. */
function tensorsByType(
  tensors: ModelSummary["tensors"],
): { dtype: string; count: number; elements: number; bytes: number }[] {
  const byType = new Map<string, { dtype: string; count: number; elements: number; bytes: number }>();
  for (const { dtype, shape, bytes } of tensors) {
    const row = byType.get(dtype) ?? { dtype, count: 0, elements: 0, bytes: 0 };
    row.count++;
    row.elements += shape.reduce((product, dim) => product * dim, 1);
    row.bytes += bytes;
    byType.set(dtype, row);
  }
  return [...byType.values()].sort((a, b) => b.bytes - a.bytes);
}

function shortValue(value: unknown): string {
  const text = JSON.stringify(value) ?? "null";
  return text.length > VALUE_LENGTH_MAX ? `${text.slice(0, VALUE_LENGTH_MAX)}…` : text;
}

function text(summary: ModelSummary): string {
  const { memory } = summary;
  const total = memory.weights + memory.kv + memory.arena;
  const config = Object.entries(summary.config);
  const width = Math.max(...config.map(([name]) => name.length), 12);
  return [
    `model         ${summary.path}`,
    `type          ${summary.type} (${summary.format})`,
    `parameters    ${summary.parameters.toLocaleString("en")}`,
    `tensors       ${summary.tensors.length}, ${formatMiB(summary.fileBytes)}`,
    ...tensorsByType(summary.tensors).map((row) =>
      `  ${row.dtype.padEnd(8)}${String(row.count).padStart(6)} tensors ${
        row.elements.toLocaleString("en").padStart(16)
      } ` +
      `elements ${formatMiB(row.bytes).padStart(14)}`
    ),
    `chat          ${summary.hasChatTemplate ? "has a chat template" : "has no chat template"}`,
    `memory        ${formatMiB(total)} with a context of ${summary.context} tokens (at most ${summary.contextLimit})`,
    `  weights     ${formatMiB(memory.weights)}`,
    `  KV cache    ${formatMiB(memory.kv)} (keys ${summary.keyDtype}, values ${summary.valueDtype})`,
    `  activations ${formatMiB(memory.arena)}`,
    "config",
    ...config.map(([name, value]) => `  ${name.padEnd(width)}  ${shortValue(value)}`),
    `ignored       ${summary.ignored.join(", ") || "nothing"}`,
  ].join("\n");
}

function json(summary: ModelSummary): string {
  const { fileBytes, memory, keyDtype, valueDtype, contextLimit, hasChatTemplate, config, tensors, ignored, ...rest } =
    summary;
  return JSON.stringify({
    ...rest,
    file_bytes: fileBytes,
    memory: { ...memory, total: memory.weights + memory.kv + memory.arena },
    type_k: keyDtype,
    type_v: valueDtype,
    context_limit: contextLimit,
    has_chat_template: hasChatTemplate,
    types: tensorsByType(tensors),
    config,
    tensors,
    ignored,
  });
}

export const infoCommand: Command = {
  name: "info",
  usage: "-m MODEL",
  doc: "show config, tensors and memory needed",
  details: "Reads headers only. The run options matter for the memory needed.",
  options: [
    MODEL_OPTION,
    { name: "tensors", doc: "list every tensor" },
    JSON_OPTION,
    ...RUN_OPTIONS,
  ],
  async run({ options, host, program }) {
    const path = options.required("model", MODEL_HINT);
    const summary = await program.engine.summarize(path, runOptions(options));
    if (options.has("json")) {
      host.stdout.write(`${json(summary)}\n`);
      return;
    }
    host.stdout.write(`${text(summary)}\n`);
    if (!options.has("tensors")) return;
    for (const { name, dtype, shape } of summary.tensors) {
      host.stdout.write(`  ${name} ${dtype} [${shape.join(", ")}]\n`);
    }
  },
};
