/** The options that every command with a model has, and what they mean to the engine. */
import { x86 } from "@mllm/backend-x86";
import { kvDTypes, maxThreads, splitSpec } from "@mllm/core";
import type { RunOptions } from "./engine.ts";
import { type OptionSpec, type ParsedOptions, UsageError } from "./options.ts";

export const MODEL_OPTION: OptionSpec = {
  name: "model",
  short: "m",
  value: "PATH",
  doc: "a Hugging Face folder or a GGUF file",
};
export const HELP_OPTION: OptionSpec = { name: "help", short: "h", doc: "this text" };

export const RUN_OPTIONS: readonly OptionSpec[] = [
  {
    name: "backend",
    value: "NAME",
    doc: `x86 (default; the best level here), or a level of it: ${x86.levels.map((name) => `x86:${name}`).join(", ")}`,
  },
  { name: "threads", short: "t", value: "N", doc: "threads to use (default: one per core)" },
  {
    name: "activations",
    value: "KIND",
    doc: "i8 (default; fast with quantised weights) or f32 (nothing rounded but the weights)",
  },
  {
    name: "context",
    short: "c",
    aliases: ["ctx-size"],
    value: "N",
    doc: "tokens that prompt and reply may have together (default: the model's limit, at most 8192)",
  },
  { name: "chunk", value: "N", doc: "tokens of a prompt that run at once (default 1024)" },
  {
    name: "kv-type",
    value: "TYPE",
    doc: `element type of the KV cache: ${kvDTypes.join(", ")} (default f16; f32 with f32 activations)`,
  },
  {
    name: "kv-type-k",
    aliases: ["cache-type-k"],
    value: "TYPE",
    doc: "of the keys alone (default: --kv-type, but q8_0 where that is q4_0)",
  },
  { name: "kv-type-v", aliases: ["cache-type-v"], value: "TYPE", doc: "of the values alone (default: --kv-type)" },
  { name: "eager", doc: "run op by op instead of replaying a captured program" },
  {
    name: "modeling",
    value: "CODE",
    doc: "fast (default; fused and in-place ops) or plain (the code to read); the results are equal",
  },
];

/** The run options, checked. */
export function runOptions(options: ParsedOptions): RunOptions {
  const backend = options.text("backend");
  const { name, level } = splitSpec(backend ?? "x86");
  if (name === "" || level === "" || level?.includes(":")) {
    throw new UsageError(`--backend can't be "${backend}"`, "Write a name, or name:level as in x86:avx2");
  }
  return {
    backend,
    threads: options.integer("threads", 1, maxThreads),
    activations: options.oneOf("activations", ["i8", "f32"]),
    context: options.integer("context", 1, 1 << 24),
    chunk: options.integer("chunk", 1, 1 << 16),
    kvDtype: options.oneOf("kv-type", kvDTypes),
    keyDtype: options.oneOf("kv-type-k", kvDTypes),
    valueDtype: options.oneOf("kv-type-v", kvDTypes),
    eager: options.has("eager") ? true : undefined,
    modeling: options.oneOf("modeling", ["plain", "fast"]),
  };
}
