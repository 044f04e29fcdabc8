/** What a subcommand of `mllm` is. */
import type { ChatProgram } from "../chat/main.ts";
import type { Host } from "../host.ts";
import type { OptionSpec, ParsedOptions } from "../options.ts";

export interface CommandRun {
  options: ParsedOptions;
  host: Host;
  program: ChatProgram;
}

export interface Command {
  name: string;
  /** After the name in the help text. */
  usage: string;
  /** One line. */
  doc: string;
  /** More lines of help. */
  details?: string;
  options: readonly OptionSpec[];
  positionalsMax?: number;
  /** Answers with the exit code where that is not 0. */
  run(run: CommandRun): Promise<number | void>;
}

export const JSON_OPTION: OptionSpec = { name: "json", doc: "one JSON object on stdout" };

export const MODEL_HINT = "Give a Hugging Face folder or a GGUF file: -m PATH";
