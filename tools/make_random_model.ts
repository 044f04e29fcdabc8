/**
 * Writes a random model of a known shape as GGUF, for benchmarks and tests:
 *
 *     deno task make:random --shape qwen3-0.6b --type q4_0 -o model.gguf [--layers N] [--vocab N] [--seed N]
 */
import { type DType, formatMiB, MllmError, quantizable } from "@mllm/core";
import { writeRandomModel } from "./random_model/model.ts";
import { type ModelShape, shapes } from "./random_model/shapes.ts";

const usage = `deno task make:random --shape NAME --type TYPE -o FILE [--layers N] [--vocab N] [--seed N]
  shapes: ${Object.keys(shapes).join(", ")}
  types:  ${quantizable.join(", ")}`;

function parse(args: readonly string[]): Map<string, string> | undefined {
  const names = ["--shape", "--type", "-o", "--layers", "--vocab", "--seed"];
  const options = new Map<string, string>();
  for (let i = 0; i < args.length; i += 2) {
    if (!names.includes(args[i]) || args[i + 1] === undefined) return undefined;
    options.set(args[i], args[i + 1]);
  }
  return options;
}

/** Runs the tool; returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help")) {
    console.log(usage);
    return 0;
  }
  const options = parse(args);
  const shape = options && shapes[options.get("--shape") ?? ""];
  const type = options?.get("--type") as DType;
  const path = options?.get("-o");
  const number = (name: string, otherwise: number) => Number(options?.get(name) ?? otherwise);
  const wrong = options === undefined
    ? "an option is not known or has no value"
    : !shape
    ? `--shape can't be ${options.get("--shape")}`
    : !quantizable.includes(type)
    ? `--type can't be ${type}`
    : !path
    ? "-o FILE is missing"
    : undefined;
  if (!shape || !path || wrong !== undefined) {
    console.error(`make:random: ${wrong}\n${usage}`);
    return 2;
  }
  const full: ModelShape = {
    ...shape,
    layers: number("--layers", shape.layers),
    vocabSize: number("--vocab", shape.vocabSize),
  };
  const seed = number("--seed", 1);
  if (![full.layers, full.vocabSize, seed].every(Number.isSafeInteger)) {
    console.error(usage);
    return 2;
  }
  try {
    const start = performance.now();
    await writeRandomModel(path, { shape: full, type, seed });
    const seconds = (performance.now() - start) / 1000;
    console.error(`${path}: ${formatMiB(Deno.statSync(path).size)} in ${seconds.toFixed(1)} s`);
    return 0;
  } catch (error) {
    if (!(error instanceof MllmError)) throw error;
    console.error(error.message);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
