/** `mllm perplexity`: how well a model predicts a text, as llama.cpp's tools/perplexity defines and prints it. */
import { type Perplexity, perplexity } from "@mllm/models";
import { loadWithBar } from "../chat/main.ts";
import { givenText } from "../given_text.ts";
import { UsageError } from "../options.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { type ProgressBar, withBar } from "../terminal/progress.ts";
import { runFields } from "./bench.ts";
import { type Command, MODEL_HINT } from "./command.ts";

const CONTEXT_DEFAULT = 512;

export const perplexityCommand: Command = {
  name: "perplexity",
  usage: "-m MODEL -f FILE [-c 512] [--chunks N] [-o text|json]",
  doc: "measure how well a model predicts a text, as llama-perplexity does",
  details:
    "The text is tokenized at once, control tokens in it as plain text, and cut into chunks of the context; what is left\n" +
    "at the end does not count. Each chunk runs by itself, with BOS for its first token where the model's texts begin\n" +
    "with that; scored is what is predicted from its middle on: 255 tokens of 512. Running values, then the mean over\n" +
    'all with its standard error; as JSON {"ppl","ppl_stddev","n_scored","n_ctx","n_chunks","running":[…], …}.',
  options: [
    MODEL_OPTION,
    { name: "file", short: "f", value: "FILE", doc: "the text, in UTF-8; - for stdin" },
    { name: "chunks", value: "N", doc: "chunks to run (default: all that are full)" },
    { name: "output", short: "o", value: "FORM", doc: "text (default) or json" },
    ...RUN_OPTIONS.map((option) =>
      option.name === "context"
        ? { ...option, doc: `tokens of a chunk (default ${CONTEXT_DEFAULT}, or the model's limit below)` }
        : option
    ),
  ],
  async run({ options, host, program }) {
    const path = options.required("model", MODEL_HINT);
    const file = options.required("file", "Name a text: -f FILE, or -f - for stdin");
    const most = options.integer("chunks", 1) ?? Infinity;
    const isJson = (options.oneOf("output", ["text", "json"]) ?? "text") === "json";
    const run = runOptions(options);
    if (run.context !== undefined && run.context < 3) {
      throw new UsageError(`--context ${run.context} leaves nothing to score`, "Take 3 or more");
    }
    const text = await givenText(file, host.stdin);
    const summary = await program.engine.summarize(path, run);
    const context = run.context ?? Math.min(CONTEXT_DEFAULT, summary.contextLimit);
    using model = await loadWithBar(host, program.engine, path, { ...run, context });
    const { tokenizer } = model;
    const ids = tokenizer.encode(text, { parseSpecial: false, addSpecial: true });
    const chunks = Math.min(most, Math.floor(ids.length / context));
    if (chunks === 0) {
      throw new UsageError(
        `the text has ${ids.length} tokens and a chunk ${context}`,
        "Give a longer text, or a smaller --context",
      );
    }
    const bosId = ids[0] === tokenizer.bosId ? tokenizer.bosId : undefined;
    const running: number[] = [];
    const measure = (bar: ProgressBar) =>
      perplexity(model, ids.slice(0, chunks * context), context, {
        secondHalf: true,
        bosId,
        onWindow: ({ ppl }, done) => {
          running.push(ppl);
          if (isJson) bar.update("scoring", done, chunks);
          else host.stdout.write(`[${done}]${ppl.toFixed(4)},`);
        },
      });
    const result = await withBar(host, measure);
    if (!isJson) {
      host.stdout.write(`\n${finalLine(result)}\n`);
      return;
    }
    const { ppl, error, count } = result;
    const fields = runFields(path, summary, program.engine.describeRun(model));
    const scores = { n_ctx: context, n_chunks: chunks, n_scored: count, ppl, ppl_stddev: error, running };
    host.stdout.write(`${JSON.stringify({ ...fields, ...scores }, null, 2)}\n`);
  },
};

/** As llama-perplexity prints it. */
function finalLine({ ppl, error }: Perplexity): string {
  return `Final estimate: PPL = ${ppl.toFixed(4)} +/- ${error.toFixed(5)}`;
}
