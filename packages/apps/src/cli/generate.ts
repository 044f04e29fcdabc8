/** `mllm generate`: continues a text or token ids. */
import { loadWithBar } from "../chat/main.ts";
import { contextFull, statsLine } from "../chat/stats_line.ts";
import type { GenerationRun, TextCodec } from "../engine.ts";
import { givenPrompt } from "../given_text.ts";
import type { Input } from "../host.ts";
import { type ParsedOptions, UsageError } from "../options.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { SAMPLING_OPTIONS, settingsFromOptions } from "../settings.ts";
import { printable, styleFor } from "../terminal/style.ts";
import { type Command, JSON_OPTION, MODEL_HINT } from "./command.ts";

const TOKENS_DEFAULT = 256;

export const PROMPT_OPTIONS = [
  { name: "prompt", short: "p", value: "TEXT", doc: "a text, - for stdin; special tokens in it are parsed" },
  { name: "tokens", value: "IDS", doc: "token ids instead of a text: 1,2,3" },
] as const;

/** Checks that exactly one form of prompt is given; the ids come when there is a tokenizer. Throws UsageError. */
export async function promptOption(options: ParsedOptions, input: Input): Promise<(tokenizer: TextCodec) => number[]> {
  const next = "Give -p TEXT or --tokens 1,2,3";
  options.exclude("prompt", ["tokens"], next);
  options.single("tokens");
  const tokens = options.integers("tokens", 0, 0x7fffffff);
  if (tokens !== undefined) return () => tokens;
  const text = options.single("prompt");
  if (text === undefined) throw new UsageError("there is no prompt", next);
  const prompt = await givenPrompt(text, input);
  return (tokenizer) => tokenizer.encode(prompt, { parseSpecial: true, addSpecial: true });
}

const rounded = (ms: number) => Math.round(ms * 1000) / 1000;

function resultJson(run: GenerationRun, loadMs: number): string {
  const { stats } = run;
  return JSON.stringify({
    tokens: run.tokens,
    text: run.text,
    stop: stats.stop,
    timings: {
      load_ms: rounded(loadMs),
      prompt_n: stats.promptTokens,
      prompt_ms: rounded(stats.promptMs),
      predicted_n: stats.generatedTokens,
      predicted_ms: rounded(stats.generateMs),
    },
  });
}

export const generateCommand: Command = {
  name: "generate",
  usage: "-m MODEL (-p TEXT | --tokens 1,2,3) [options]",
  doc: "continue a text",
  details: "The new text goes to stdout as it comes, or with --json all at the end:\n" +
    '{"tokens":[…],"text":"…","stop":"eos|length|stop",\n' +
    ' "timings":{"load_ms","prompt_n","prompt_ms","predicted_n","predicted_ms"}}',
  options: [
    MODEL_OPTION,
    ...PROMPT_OPTIONS,
    {
      name: "max-tokens",
      short: "n",
      aliases: ["n-predict"],
      value: "N",
      doc: `new tokens at most (default ${TOKENS_DEFAULT})`,
    },
    ...SAMPLING_OPTIONS,
    { name: "ignore-eos", doc: "go on past end-of-sequence tokens" },
    JSON_OPTION,
    ...RUN_OPTIONS,
  ],
  async run({ options, host, program }) {
    const path = options.required("model", MODEL_HINT);
    const prompt = await promptOption(options, host.stdin);
    const settings = settingsFromOptions(options).toGenerate();
    const maxTokens = options.integer("max-tokens", 0) ?? TOKENS_DEFAULT;
    using model = await loadWithBar(host, program.engine, path, runOptions(options));
    const ignoreEos = options.has("ignore-eos");
    const run = model.generate(prompt(model.tokenizer), { ...settings, maxTokens, ignoreEos });
    const json = options.has("json");
    for await (const piece of run) if (!json) host.stdout.write(printable(piece.text, host.stdout.isTerminal));
    host.stdout.write(json ? `${resultJson(run, model.loadMs)}\n` : "\n");
    if (run.stats.contextFull) host.stderr.write(`mllm: the text ends here because ${contextFull(model)}\n`);
    if (host.stderr.isTerminal && !json) {
      host.stderr.write(`${styleFor(true, host.env).dim(statsLine(run.stats))}\n`);
    }
  },
};
