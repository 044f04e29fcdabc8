/** The chat without a terminal: each line is a message, replies alone go to stdout. */
import { MllmError } from "@mllm/core";
import { readLines } from "../given_text.ts";
import type { Host } from "../host.ts";
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

/**
 * Every line of stdin is a message, whatever it begins with; blank lines are skipped. Where one fails after others,
 * those behind it are not read, and a note says so.
 */
export async function runPipeChat(host: Host, talk: Talk): Promise<void> {
  let number = 1;
  try {
    for await (const line of readLines(host.stdin)) {
      if (line.trim() !== "") await runOnce(host, talk, line);
      number++;
    }
  } catch (error) {
    if (number > 1 && error instanceof MllmError) {
      host.stderr.write(`mllm: line ${number} and those after it have no reply\n`);
    }
    throw error;
  }
}
