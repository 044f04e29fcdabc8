/** The chat on a terminal that can't move its cursor (TERM=dumb): it edits the lines itself; the commands are the same. */
import { COMMAND_WORDS, errorLine } from "../errors.ts";
import { readLines } from "../given_text.ts";
import { type Host, SIGNAL_EXIT } from "../host.ts";
import { isOpen, withoutFence } from "../terminal/line_editor.ts";
import { printable } from "../terminal/style.ts";
import { type ChatSwitches, type CommandContext, messageOf, runCommand } from "./commands.ts";
import { endNote, statsLine } from "./stats_line.ts";
import type { Talk } from "./talk.ts";

/** Runs the chat until the user leaves. Ctrl+C stops a reply; without one it ends the program. */
export async function runPlainChat(host: Host, talk: Talk, greeting: readonly string[]): Promise<void> {
  const chat = new PlainChat(host, talk);
  const stop = host.onSignal("SIGINT", () => chat.interrupt());
  try {
    await chat.run(greeting);
  } finally {
    stop();
  }
}

class PlainChat {
  #host: Host;
  #talk: Talk;
  #switches: Pick<ChatSwitches, "stats"> = { stats: true };
  #commands: CommandContext;
  #reply: AbortController | undefined;

  constructor(host: Host, talk: Talk) {
    this.#host = host;
    this.#talk = talk;
    this.#commands = {
      talk,
      switches: this.#switches,
      initialSwitches: { ...this.#switches },
      hasHistoryFile: false,
      print: (text) => this.#print(text),
      ownFiles: new Set(),
      home: host.env("HOME") ?? host.env("USERPROFILE"),
    };
  }

  async run(greeting: readonly string[]): Promise<void> {
    for (const text of greeting) this.#print(text);
    let message = "";
    this.#host.stdout.write(">>> ");
    for await (const line of readLines(this.#host.stdin, { repair: true })) {
      message = message === "" ? line : `${message}\n${line}`;
      if (isOpen(message)) {
        this.#host.stdout.write("... ");
        continue;
      }
      if (await this.#say(withoutFence(message))) return;
      message = "";
      this.#host.stdout.write(">>> ");
    }
    this.#host.stdout.write("\n");
  }

  interrupt(): void {
    if (this.#reply !== undefined && !this.#reply.signal.aborted) return this.#reply.abort();
    this.#host.stdout.write("\n");
    this.#host.exit(SIGNAL_EXIT.SIGINT);
  }

  #print(text: string): void {
    this.#host.stdout.write(`${printable(text, true)}\n`);
  }

  /** A message or a command; answers true to leave. */
  async #say(text: string): Promise<boolean> {
    if (text.trim() === "") return false;
    try {
      const message = messageOf(text);
      if (message === undefined) return await runCommand(this.#commands, text);
      await this.#replyTo(message);
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) throw error;
      this.#print(errorLine(error, COMMAND_WORDS));
    } finally {
      this.#reply = undefined;
    }
    return false;
  }

  async #replyTo(text: string): Promise<void> {
    this.#reply = new AbortController();
    const { signal } = this.#reply;
    const onText = (piece: string) => this.#host.stdout.write(printable(piece, true));
    const stats = await this.#talk.reply(text, { signal, onText });
    this.#print("");
    if (stats === undefined) return;
    const note = endNote(stats, this.#talk.model);
    if (note !== undefined) this.#print(`(${note})`);
    if (this.#switches.stats && stats.generatedTokens > 0) this.#print(statsLine(stats));
    this.#print("");
  }
}
