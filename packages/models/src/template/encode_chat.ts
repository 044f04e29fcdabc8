import { MllmError } from "@mllm/core";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ChatTemplate, RenderOptions } from "./chat_template.ts";
import { Shield } from "./shield.ts";

/** Options of `encodeChat`: the template's variables, but for the messages. */
export type EncodeChatOptions = Partial<Omit<RenderOptions, "messages">>;

/**
 * Renders a conversation and turns it into ids, such that control tokens of the template are parsed and those that
 * somebody wrote into a message or a tool definition stay plain text. Without any there, the ids are those of the plain
 * rendering. BOS and EOS come from the tokenizer unless given.
 *
 * Control tokens in the messages are hidden while the template runs. Should the template look for one of them (a
 * reasoning model's end of thought, say) and render something else for it, then those in assistant messages, which the
 * model wrote itself, are left visible.
 *
 * @throws MllmError `invalid_argument` where the template refuses the messages
 */
export function encodeChat(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly unknown[],
  options: EncodeChatOptions = {},
): number[] {
  const text = (id: number | undefined) => id === undefined ? undefined : tokenizer.tokenText(id);
  const variables: EncodeChatOptions = {
    bosToken: text(tokenizer.bosId),
    eosToken: text(tokenizer.eosIds[0]),
    ...options,
  };
  const tools = options.tools as readonly unknown[] | null | undefined;
  const rendered = template.render({ ...variables, messages });
  const surroundings = template.source + JSON.stringify([messages, variables]);
  const attempt = (visible: (message: unknown) => boolean) => {
    const shield = new Shield(tokenizer.specialTexts, surroundings);
    const hidden = messages.map((message) => visible(message) ? message : shield.hide(message));
    const hiddenTools = tools && (shield.hide(tools) as unknown[]);
    if (!shield.active) return { text: rendered, plain: [] };
    try {
      return shield.restore(template.render({ ...variables, messages: hidden, tools: hiddenTools }));
    } catch (error) {
      if (error instanceof MllmError) return undefined;
      throw error;
    }
  };
  const strict = attempt(() => false);
  const lenient = strict?.text === rendered ? strict : attempt(isAssistant);
  const best = lenient?.text === rendered ? lenient : strict;
  if (best === undefined) {
    throw new MllmError(
      "invalid_argument",
      "the chat template treats a control token in a message in a way of its own",
      {
        next: "Take the control tokens out of the messages",
      },
    );
  }
  return tokenizer.encode(best.text, { plain: best.plain });
}

function isAssistant(message: unknown): boolean {
  return typeof message === "object" && message !== null && (message as { role?: unknown }).role === "assistant";
}
