/** The chat as a program: options, loading, and one of its three forms (terminal, pipe, one shot). */
import type { Engine, LoadedModel, ModelChoice } from "../engine.ts";
import { reportError } from "../errors.ts";
import { givenPrompt } from "../given_text.ts";
import type { Host } from "../host.ts";
import { helpText, type OptionSpec, parseOptions, UsageError } from "../options.ts";
import { HELP_OPTION, MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { SAMPLING_OPTIONS, settingsFromOptions } from "../settings.ts";
import { HistoryFile, stateFolder } from "../terminal/history.ts";
import { withBar } from "../terminal/progress.ts";
import { runOnce, runPipeChat } from "./pipe_chat.ts";
import { runPlainChat } from "./plain_chat.ts";
import { Talk } from "./talk.ts";
import { runTerminalChat } from "./terminal_chat.ts";

const CHAT_OPTIONS: readonly OptionSpec[] = [
  { ...MODEL_OPTION, doc: `${MODEL_OPTION.doc} (default: the small demonstration model that comes along)` },
  { name: "prompt", short: "p", value: "TEXT", doc: "one message, - for all of stdin; prints the reply and ends" },
  { name: "system", short: "s", value: "TEXT", doc: "system prompt" },
  { name: "max-tokens", short: "n", aliases: ["n-predict"], value: "N", doc: "most tokens of a reply" },
  ...SAMPLING_OPTIONS,
  ...RUN_OPTIONS,
  { name: "no-history", doc: "keep nothing that is typed (also MLLM_NOHISTORY=1)" },
  HELP_OPTION,
];

function help(command: string): string {
  return `Talk to a model on this machine.

  ${command} [options]          on a terminal: a conversation; /help there lists its commands
  ${command} [options] < FILE   each line is a message; replies alone on stdout
  ${command} [options] -p TEXT  one message, one reply

Options:
${helpText(CHAT_OPTIONS)}
`;
}

/** Finds the demonstration model. */
export type FindEmbeddedModel = () => Promise<string>;

/** Shown when the demonstration model answers. */
function demonstrationNote({ command, fetchCommand }: ChatProgram): string {
  const fetch = fetchCommand === undefined ? "" : ` (\`${fetchCommand}\` downloads one)`;
  return "This is the demonstration model that comes with mllm. It is tiny: it knows a little about this project and " +
    "small talk, and makes things up beyond that. For a real one, get a Qwen3 or Qwen2.5 model as a Hugging Face " +
    `folder or GGUF file${fetch} and start with: ${command} --model PATH`;
}

/** The same where it goes to stderr, beside replies that go elsewhere. */
function demonstrationShort(command: string): string {
  return `the small demonstration model answers; for a real one: ${command} --model PATH`;
}

function modelName(choice: ModelChoice): string {
  if (choice.isEmbedded) return "mllm demonstration";
  return choice.path.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
}

/** What the chat runs on. */
export interface ChatProgram {
  /** Loads and runs models. */
  engine: Engine;
  /** Finds the demonstration model. */
  findEmbeddedModel: FindEmbeddedModel;
  /** How the user starts this program, for hints. */
  command: string;
  /** What downloads a real model, where there is such a thing. */
  fetchCommand?: string;
}

/** Runs the chat; answers with the exit code (0, 1 for a failure, 2 for wrong usage) and never throws. */
export async function chatMain(args: readonly string[], host: Host, program: ChatProgram): Promise<number> {
  try {
    return await chat(args, host, program);
  } catch (error) {
    return reportError(host, error);
  }
}

async function chat(args: readonly string[], host: Host, program: ChatProgram): Promise<number> {
  const options = parseOptions(args, CHAT_OPTIONS);
  if (options.has("help")) {
    host.stdout.write(help(program.command));
    return 0;
  }
  const asked = options.single("prompt");
  if (asked !== undefined && asked.trim() === "") throw new UsageError("--prompt is empty");
  const settings = settingsFromOptions(options);
  const maxTokens = options.integer("max-tokens", 1);
  if (maxTokens !== undefined) settings.set("max_tokens", maxTokens);
  const run = runOptions(options);
  const [given, system] = [options.single("model"), options.single("system")];
  const prompt = asked === undefined ? undefined : await givenPrompt(asked, host.stdin);
  const choice: ModelChoice = given === undefined
    ? { path: await program.findEmbeddedModel(), isEmbedded: true }
    : { path: given, isEmbedded: false };
  using model = await loadWithBar(host, program.engine, choice.path, run);
  const talk = new Talk(model, model.chat({ system }), settings, modelName(choice));
  const isTerminal = host.stdin.isTerminal && host.stdout.isTerminal;
  if (prompt !== undefined || !isTerminal) {
    if (choice.isEmbedded) host.stderr.write(`mllm: ${demonstrationShort(program.command)}\n`);
    if (prompt !== undefined) await runOnce(host, talk, prompt);
    else await runPipeChat(host, talk);
    return 0;
  }
  const seconds = (model.loadMs / 1000).toFixed(2);
  const facts = `context ${model.context} tokens · loaded in ${seconds} s · /help · Ctrl+D leaves`;
  const greeting = [
    ...(choice.isEmbedded ? [{ text: demonstrationNote(program), style: "dim" as const }] : []),
    { text: talk.modelName, style: "bold" as const },
    { text: facts, style: "dim" as const },
  ];
  if (host.env("TERM") === "dumb") {
    await runPlainChat(host, talk, greeting.map(({ text }) => text));
    return 0;
  }
  const file = historyFile(host);
  const keepsHistory = file !== undefined && !options.has("no-history") && (host.env("MLLM_NOHISTORY") ?? "") === "";
  return await runTerminalChat(host, talk, { greeting, historyFile: file, keepsHistory });
}

function historyFile(host: Host): HistoryFile | undefined {
  const folder = stateFolder(host.env);
  if (folder === undefined) return undefined;
  return new HistoryFile(`${folder}${folder.includes("\\") ? "\\" : "/"}history`);
}

/** Loads with a progress bar. */
export async function loadWithBar(
  host: Host,
  engine: Engine,
  path: string,
  run: Parameters<Engine["load"]>[1],
): Promise<LoadedModel> {
  return await withBar(host, (bar) => engine.load(path, { ...run, onProgress: (...at) => bar.update(...at) }));
}
