/** `mllm tokenize`: text to token ids. */
import { readAll } from "../given_text.ts";
import { UsageError } from "../options.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { type Command, JSON_OPTION, MODEL_HINT } from "./command.ts";

export const tokenizeCommand: Command = {
  name: "tokenize",
  usage: "-m MODEL [TEXT]",
  doc: "show the token ids of a text",
  details:
    "Without TEXT, or for -, the text is read from stdin, to its end and with its line ends. Only the tokenizer is\n" +
    "loaded: the run options, which all commands take, are checked and change nothing.",
  options: [
    MODEL_OPTION,
    { name: "no-parse-special", doc: "treat special tokens in the text as plain text" },
    { name: "add-special", doc: "add what the tokenizer puts around a text (BOS, EOS)" },
    { ...JSON_OPTION, doc: '{"tokens":[…]} on stdout' },
    ...RUN_OPTIONS,
  ],
  positionalsMax: 1,
  async run({ options, host, program }) {
    const path = options.required("model", MODEL_HINT);
    runOptions(options);
    const [text = "-"] = options.positionals;
    const given = text === "-" ? undefined : text;
    if (given === undefined && host.stdin.isTerminal) {
      throw new UsageError("there is no text", "Give one, or pipe one in");
    }
    const tokenizer = await program.engine.tokenizer(path);
    const tokens = tokenizer.encode(given ?? await readAll(host.stdin), {
      parseSpecial: !options.has("no-parse-special"),
      addSpecial: options.has("add-special"),
    });
    host.stdout.write(`${options.has("json") ? JSON.stringify({ tokens }) : tokens.join(" ")}\n`);
  },
};
