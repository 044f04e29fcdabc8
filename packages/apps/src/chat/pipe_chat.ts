/** The chat without a terminal: each line is a message, replies alone go to stdout. */
import { type Host, readLines } from "../host.ts";
import { printable } from "../terminal/style.ts";
import { type CommandContext, isCommand, runCommand } from "./commands.ts";
import { endNote } from "./stats_line.ts";
import type { Talk } from "./talk.ts";

/** One message, one reply with a line end after it. Notes about how it ended go to stderr. */
export async function runOnce(host: Host, talk: Talk, text: string): Promise<void> {
  const stats = await talk.reply(text, {
    onText: (piece) => host.stdout.write(printable(piece, host.stdout.isTerminal)),
  });
  host.stdout.write("\n");
  const note = stats === undefined ? undefined : endNote(stats, talk.model.context);
  if (note !== undefined) host.stderr.write(`mllm: ${note}\n`);
}

/** Every line of stdin in turn. Commands that exist work, and print on stderr; blank lines are skipped. */
export async function runPipeChat(host: Host, talk: Talk): Promise<void> {
  const context: CommandContext = {
    talk,
    switches: { stats: false, wordwrap: false, history: false },
    print: (text) => host.stderr.write(`${text}\n`),
    ownFiles: new Set(),
    home: host.env("HOME"),
  };
  for await (const line of readLines(host.stdin)) {
    if (line.trim() === "") continue;
    if (isCommand(line)) {
      if (await runCommand(context, line)) return;
    } else await runOnce(host, talk, line.startsWith("//") ? line.slice(1) : line);
  }
}
