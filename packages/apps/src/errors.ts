/**
 * Errors on their way to the user: one line each, never a stack trace unless MLLM_DEBUG asks for it. The library speaks of
 * its own options and calls, in backticks; here they get the names that they have on a command line and in the chat.
 */
import { MllmError } from "@mllm/core";
import type { Host } from "./host.ts";

function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x1f\x7f]+/g, " ").trim();
}

const WORDS: Readonly<Record<string, string>> = {
  context: "--context",
  chunk: "--chunk",
  activations: "--activations",
  kvDtype: "--kv-type",
  keyDtype: "--kv-type-k",
  valueDtype: "--kv-type-v",
  modeling: "--modeling",
  "model.generate": "`mllm generate`",
  "chat.clear()": "a new run",
};

/** The words of a conversation that takes commands. */
export const COMMAND_WORDS: Readonly<Record<string, string>> = { ...WORDS, "chat.clear()": "/clear" };

/** One line for stderr, or for a conversation. */
export function errorLine(error: unknown, words: Readonly<Record<string, string>> = WORDS): string {
  if (error instanceof MllmError) {
    const message = oneLine(error.message);
    const text = message.replace(/`([^`]+)`/g, (same, name) => Object.hasOwn(words, name) ? words[name] : same);
    return `mllm: ${text}`;
  }
  if (error instanceof Deno.errors.NotCapable) {
    return `mllm: Deno does not permit this: ${oneLine(error.message)}`;
  }
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return `mllm: something went wrong inside: ${oneLine(what)}. MLLM_DEBUG=1 shows where`;
}

/**
 * Reports an error and answers with the exit code: 0 when the reader went away, 2 where what was given can't be right
 * (an option, or a prompt longer than the context), else 1.
 */
export function reportError(host: Host, error: unknown): number {
  if (error instanceof Deno.errors.BrokenPipe) return 0;
  try {
    host.stderr.write(`${errorLine(error)}\n`);
    if ((host.env("MLLM_DEBUG") ?? "") !== "" && error instanceof Error) {
      host.stderr.write(`${error.stack}\n${error.cause === undefined ? "" : `caused by ${error.cause}\n`}`);
    }
  } catch {
    // Nobody reads stderr: the exit code has to do.
  }
  return error instanceof MllmError && error.code === "invalid_argument" ? 2 : 1;
}
