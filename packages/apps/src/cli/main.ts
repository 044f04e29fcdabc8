/** The `mllm` command: finds the subcommand, parses its options, turns errors into exit codes. */
import { chatMain, type ChatProgram } from "../chat/main.ts";
import { reportError } from "../errors.ts";
import type { Host } from "../host.ts";
import { helpText, parseOptions, UsageError } from "../options.ts";
import { HELP_OPTION } from "../run_options.ts";
import { nearest } from "../suggest.ts";
import { VERSION } from "../version.ts";
import { benchCommand } from "./bench.ts";
import type { Command } from "./command.ts";
import { doctorCommand } from "./doctor.ts";
import { generateCommand } from "./generate.ts";
import { infoCommand } from "./info.ts";
import { logitsCommand } from "./logits.ts";
import { perplexityCommand } from "./perplexity.ts";
import { tokenizeCommand } from "./tokenize.ts";
import { tuneCommand } from "./tune.ts";

const COMMANDS: readonly Command[] = [
  generateCommand,
  logitsCommand,
  tokenizeCommand,
  infoCommand,
  doctorCommand,
  tuneCommand,
  benchCommand,
  perplexityCommand,
];
const CHAT_DOC = "talk to a model; `mllm chat --help` has its options";

function overview(): string {
  const rows = [...COMMANDS.map(({ name, doc }) => [name, doc]), ["chat", CHAT_DOC]];
  return `mllm: language models on this machine.

  mllm COMMAND [options]

Commands:
${rows.map(([name, doc]) => `  ${name.padEnd(12)}${doc}`).join("\n")}

\`mllm COMMAND --help\` explains one, \`mllm --version\` tells the version. Results go to stdout, everything else to stderr.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 after Ctrl+C. MLLM_DEBUG=1 shows where an error came from.
`;
}

function commandHelp(command: Command): string {
  return `mllm ${command.name}: ${command.doc}.

  ${`mllm ${command.name} ${command.usage}`.trim()}
${command.details === undefined ? "" : `\n${command.details}\n`}
Options:
${helpText([...command.options, HELP_OPTION])}
`;
}

function findCommand(name: string): Command {
  const command = COMMANDS.find((one) => one.name === name);
  if (command !== undefined) return command;
  const isOption = name.startsWith("-");
  const known = isOption ? ["--help", "--version"] : [...COMMANDS.map((one) => one.name), "chat", "help"];
  const meant = nearest(name, known);
  throw new UsageError(
    isOption ? `${name} needs a command before it` : `there is no command "${name}"`,
    meant === undefined ? "`mllm --help` lists the commands" : `Did you mean ${meant}?`,
  );
}

async function run(args: readonly string[], host: Host, program: ChatProgram): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    host.stderr.write(overview());
    return 2;
  }
  if (name === "--version") {
    host.stdout.write(`mllm ${VERSION}\n`);
    return 0;
  }
  if (name === "--help" || name === "-h" || (name === "help" && rest.length === 0)) {
    host.stdout.write(overview());
    return 0;
  }
  if (name === "help") return await run([rest[0], "--help"], host, program);
  if (name === "chat") return await chatMain(rest, host, program);
  const command = findCommand(name);
  const specs = [...command.options, HELP_OPTION];
  // Help is wanted even when the rest of the line is not right.
  const end = rest.indexOf("--");
  const last = end < 0 ? rest.length : end;
  if (rest.slice(0, last).at(-1) === "--help" || rest.slice(0, last).at(-1) === "-h") {
    host.stdout.write(commandHelp(command));
    return 0;
  }
  const options = parseOptions(rest, specs, { positionalsMax: command.positionalsMax });
  if (options.has("help")) {
    host.stdout.write(commandHelp(command));
    return 0;
  }
  return await command.run({ options, host, program }) ?? 0;
}

/** Runs `mllm`; answers with the exit code (0, 1 for a failure, 2 for wrong usage, 130 after Ctrl+C) and never throws. */
export async function mllmMain(args: readonly string[], host: Host, program: ChatProgram): Promise<number> {
  try {
    return await run(args, host, program);
  } catch (error) {
    return reportError(host, error);
  }
}
