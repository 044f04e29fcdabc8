import { MllmError } from "@mllm/core";
import type { GenerateOptions, Generation, GenerationStats } from "./generation/generate.ts";
import type { LanguageModel } from "./language_model.ts";
import { encodeChat } from "./template/encode_chat.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  /** Who speaks; chat templates write it in their own way. */
  role: "system" | "user" | "assistant";
  /** Plain text; `encodeChat` says what becomes of control tokens written in it. */
  content: string;
}

/** What a conversation starts with. */
export interface ChatSessionOptions {
  /** System prompt; without it the template's own default applies. */
  system?: string;
  /** Earlier turns, user and assistant in turn. */
  messages?: readonly ChatMessage[];
  /** Further variables for the chat template, for instance `enable_thinking`. */
  templateVariables?: Record<string, unknown>;
}

/** Longest message, in UTF-16 units: templates make texts of up to 4 Mi. */
const MESSAGE_LENGTH_MAX = 4_000_000;

/** A conversation of several turns. Turns that the KV cache holds already are not run again. */
export class ChatSession {
  /** The turns so far, without the system prompt. */
  messages: ChatMessage[];
  /** System prompt of the next turn; undefined leaves the template its own default. */
  system: string | undefined;
  /** Further variables for the chat template, for instance `enable_thinking`. */
  templateVariables: Record<string, unknown>;
  /** Counts and times of the last reply; undefined before the first one and when a turn failed before generating. */
  lastStats: Readonly<GenerationStats> | undefined;
  #replying = false;

  /**
   * Starts a conversation; nothing runs before `send`.
   *
   * @throws {MllmError} `unsupported` when the model has no chat template
   */
  constructor(
    /** The model that answers; conversations that share it also share its KV cache. */
    readonly model: LanguageModel,
    options: ChatSessionOptions = {},
  ) {
    if (!model.template) {
      throw new MllmError("unsupported", "this model has no chat template, so it can't hold a conversation", {
        file: model.checkpoint.path,
        next: "Use `model.generate` for plain continuation, or take an instruct model",
      });
    }
    this.system = options.system;
    this.messages = [...(options.messages ?? [])];
    this.templateVariables = options.templateVariables ?? {};
  }

  /**
   * The ids of the conversation so far, ready for the assistant's next turn.
   *
   * @throws {MllmError} `invalid_argument` where the template refuses the messages
   */
  promptIds(): number[] {
    const system: ChatMessage[] = this.system === undefined ? [] : [{ role: "system", content: this.system }];
    return encodeChat(this.model.tokenizer, this.model.template!, [...system, ...this.messages], {
      ...this.templateVariables,
      addGenerationPrompt: true,
    });
  }

  /**
   * Says `text` and streams the reply. A reply that is stopped by the signal or by leaving the loop stays in the
   * conversation as far as it came; when the turn fails before the reply starts, the conversation is as before.
   *
   * @throws {MllmError} `invalid_argument` when the conversation no longer fits into the context
   * @example
   * ```ts
   * import { loadModel } from "@mllm/models";
   * import { x86 } from "@mllm/backend-x86";
   *
   * using model = await loadModel("models/Qwen3-0.6B", { backend: x86 });
   * const chat = model.chat({ system: "Answer in one sentence." });
   * for await (const piece of chat.send("What is a tensor?")) console.log(piece);
   * ```
   */
  async *send(text: string, options: GenerateOptions = {}): AsyncGenerator<string> {
    if (this.#replying) {
      throw new MllmError("invalid_argument", "the conversation waits for a reply already", {
        next: "Read that one to its end, or stop it, before the next message",
      });
    }
    if (typeof text !== "string") {
      throw new MllmError("invalid_argument", `a message must be a text, not ${typeof text}`);
    }
    if (text.length > MESSAGE_LENGTH_MAX) {
      throw new MllmError("invalid_argument", `a message of ${text.length} characters is longer than any context`, {
        next: "Say less",
      });
    }
    this.#replying = true;
    const turn: ChatMessage = { role: "user", content: text };
    this.messages.push(turn);
    let generation: Generation | undefined;
    try {
      const prompt = this.promptIds();
      const { context, contextLimit } = this.model;
      if (prompt.length >= context) {
        const larger = context < contextLimit;
        const again = this.messages.length > 1 ? `Start again with \`chat.clear()\`${larger ? "," : " or"} say` : "Say";
        throw new MllmError(
          "invalid_argument",
          `the conversation has ${prompt.length} tokens with this message and the context holds ${context}`,
          {
            next: larger
              ? `${again} less, or load the model with a larger \`context\`, up to ${contextLimit}`
              : `${again} less: the model holds no more`,
          },
        );
      }
      generation = this.model.generate(prompt, options);
      for await (const piece of generation) if (piece.text !== "") yield piece.text;
    } finally {
      this.#replying = false;
      this.lastStats = generation?.stats;
      const at = this.messages.indexOf(turn); // not there any more after `clear`
      if (at >= 0) {
        if (generation && generation.tokens.length > 0) {
          this.messages.splice(at + 1, 0, { role: "assistant", content: generation.text });
        } else this.messages.splice(at, 1);
      }
    }
  }

  /** Forgets the turns; the system prompt stays. */
  clear(): void {
    this.messages = [];
    this.lastStats = undefined;
  }
}
