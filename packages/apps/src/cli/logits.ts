/** `mllm logits`: the logits of every token of a prompt, as a file. */
import { loadWithBar } from "../chat/main.ts";
import { MllmError } from "@mllm/core";
import { UsageError } from "../options.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { type Command, MODEL_HINT } from "./command.ts";
import { PROMPT_OPTIONS, promptOption } from "./generate.ts";

/** Whether an existing file is the model itself or lies in its folder. */
function isPartOf(file: string, model: string): boolean {
  try {
    const [real, part] = [Deno.realPathSync(model), Deno.realPathSync(file)];
    return part === real || part.startsWith(`${real}/`) || part.startsWith(`${real}\\`);
  } catch {
    return false; // one of them does not exist
  }
}

/** Refuses a file that can't be written there before the work is done. Throws `not_found` or `invalid_argument`. */
function checkFolder(file: string): void {
  const folder = file.replace(/[^\\/]*$/, "") || ".";
  if (!isFolder(folder)) throw new MllmError("not_found", "no such folder", { file: folder, next: "Make it first" });
  if (isFolder(file)) throw new MllmError("invalid_argument", "this is a folder", { file, next: "Name a file in it" });
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

export const logitsCommand: Command = {
  name: "logits",
  usage: "-m MODEL (--tokens 1,2,3 | -p TEXT) -o out.safetensors",
  doc: "write the logits of every token",
  details: "The file has float32 `logits` [n, vocab] and, with --hidden-states, `hidden.i` [n, hidden] per layer i.",
  options: [
    MODEL_OPTION,
    ...PROMPT_OPTIONS,
    { name: "hidden-states", doc: "also the residual stream after each layer" },
    { name: "output", short: "o", value: "FILE", doc: "safetensors file to write" },
    ...RUN_OPTIONS,
  ],
  async run({ options, host, program }) {
    const path = options.required("model", MODEL_HINT);
    const output = options.required("output", "Name the file to write: -o out.safetensors");
    if (output === "-") throw new UsageError("logits go to a file, not to stdout", "Name one: -o out.safetensors");
    if (isPartOf(output, path)) {
      throw new UsageError(`${output} belongs to the model`, "Name another file to write");
    }
    checkFolder(output);
    const prompt = await promptOption(options, host.stdin);
    using model = await loadWithBar(host, program.engine, path, runOptions(options));
    const ids = prompt(model.tokenizer);
    const { logits, hiddenStates } = await model.evaluate(ids, { hiddenStates: options.has("hidden-states") });
    const tensor = (name: string, data: Float32Array) => ({
      name,
      shape: [ids.length, data.length / ids.length],
      data,
    });
    await program.engine.writeTensors(output, [
      tensor("logits", logits),
      ...hiddenStates.map((data, i) => tensor(`hidden.${i}`, data)),
    ]);
  },
};
