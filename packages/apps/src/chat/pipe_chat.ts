/** The chat without a terminal: each line is a message, replies alone go to stdout. */
import { type Host, readLines } from "../host.ts";
import { printable } from "../terminal/style.ts";
import { endNote } from "./stats_line.ts";
import type { Talk } from "./talk.ts";

/** One message, one reply with a line end after it. Notes about how it ended go to stderr. */
export async function runOnce(host: Host, talk: Talk, text: string): Promise<void> {
  const stats = await talk.reply(text, {
    onText: (piece) => host.stdout.write(printable(piece, host.stdout.isTerminal)),
  });
  host.stdout.write("\n");
  const note = stats === undefined ? undefined : endNote(stats, talk.model);
  if (note !== undefined) host.stderr.write(`mllm: ${note}\n`);
}

/** Every line of stdin is a message, whatever it begins with; blank lines are skipped. */
export async function runPipeChat(host: Host, talk: Talk): Promise<void> {
  for await (const line of readLines(host.stdin)) {
    if (line.trim() !== "") await runOnce(host, talk, line);
  }
}
