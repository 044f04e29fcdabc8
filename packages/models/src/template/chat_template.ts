import { Environment, parse, tokenize } from "@huggingface/jinja";
import { MllmError } from "@mllm/core";
import { ChatInterpreter } from "./interpreter.ts";
import { strftime } from "./python.ts";

/** Variables of a chat template. Any further ones (`enable_thinking`, …) are passed on as they are. */
export interface RenderOptions {
  /** Turns with `role`, `content` and whatever else the template knows. */
  messages: readonly unknown[];
  /** Whether the text ends with the start of the assistant's turn. Default false. */
  addGenerationPrompt?: boolean;
  /** Tool definitions (JSON schema), for templates that know tools. */
  tools?: readonly unknown[] | null;
  /** Documents for templates of retrieval models; none by default. */
  documents?: readonly unknown[] | null;
  /** Text of the BOS token, `bos_token` in the template. Default: empty. */
  bosToken?: string;
  /** Text of the EOS token, `eos_token` in the template. Default: empty. */
  eosToken?: string;
  /** What `strftime_now` takes for now. Default: the present. */
  now?: Date;
  /** Any further variable of the template, under its own name. */
  [variable: string]: unknown;
}

const sourceLengthMax = 512 * 1024;
/** The sandbox of Python's Jinja has the same limit. */
const rangeMax = 100_000;
const whiteSpaceMax = 4096;

/** Thrown by the template itself, through `raise_exception`. */
class Raised extends Error {}

/**
 * A Jinja chat template, rendered as transformers does (trim_blocks, lstrip_blocks, loop controls, `raise_exception`,
 * `strftime_now`, `tojson` without escapes for other scripts). Templates are limited in size and work.
 *
 * @example
 * ```ts
 * import { ChatTemplate } from "@mllm/models";
 *
 * const template = new ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}");
 * template.render({ messages: [{ role: "user", content: "Hi" }] }); // "<user>Hi"
 * ```
 */
export class ChatTemplate {
  /** The template's text. */
  readonly source: string;
  readonly #program: unknown;

  /**
   * Parses the template.
   *
   * @param source Jinja text, as in `chat_template` of tokenizer_config.json
   * @throws MllmError `invalid_file` where the template is broken or too large
   */
  constructor(source: string) {
    if (typeof source !== "string") throw new MllmError("invalid_file", "the chat template is not a text");
    if (source.length > sourceLengthMax || hasWhiteSpaceRun(source)) {
      throw new MllmError("invalid_file", "the chat template is too large or has too much white space");
    }
    this.source = source;
    try {
      this.#program = parse(joinExponents(tokenize(source, { lstrip_blocks: true, trim_blocks: true })));
    } catch (error) {
      throw failure("invalid_file", "the chat template can't be read", error);
    }
  }

  /**
   * Renders a conversation.
   *
   * @returns the prompt text, control tokens included; `encodeChat` turns a conversation into ids instead
   * @throws MllmError `invalid_argument` with the template's own message where it refuses the messages, or with the
   * engine's where the variables don't fit; `invalid_file` where it does too much work
   */
  render(options: RenderOptions): string {
    const { messages, addGenerationPrompt = false, tools = null, documents = null, bosToken, eosToken, now, ...rest } =
      options;
    const variables: Record<string, unknown> = {
      messages,
      tools,
      documents,
      add_generation_prompt: addGenerationPrompt,
      bos_token: bosToken ?? "",
      eos_token: eosToken ?? "",
      range,
      strftime_now: (format: string) => strftime(now ?? new Date(), format),
      raise_exception: (message: unknown) => {
        throw new Raised(typeof message === "object" ? "no text" : String(message)); // lists may be endless
      },
      ...rest,
    };
    try {
      const environment = new Environment();
      for (const [name, value] of Object.entries({ true: true, false: false, none: null })) {
        environment.set(name, value);
        environment.set(name[0].toUpperCase() + name.slice(1), value);
      }
      for (const [name, value] of Object.entries(variables)) {
        if (value !== undefined && !environment.variables.has(name)) environment.set(name, value);
      }
      return new ChatInterpreter(environment).evaluate(this.#program, environment).value;
    } catch (error) {
      throw failure("invalid_argument", "the chat template can't be applied to these messages", error);
    }
  }
}

function failure(code: "invalid_file" | "invalid_argument", what: string, error: unknown): MllmError {
  if (error instanceof MllmError) return error;
  if (error instanceof Raised) {
    return new MllmError("invalid_argument", `the chat template says: ${error.message}`, { cause: error });
  }
  const message = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ").slice(0, 500);
  return new MllmError(code, `${what}: ${message}`, { cause: error });
}

/** The engine's own search for `generation` tags is quadratic in a run of white space. */
function hasWhiteSpaceRun(source: string): boolean {
  for (const run of source.matchAll(/\s+/g)) if (run[0].length > whiteSpaceMax) return true;
  return false;
}

type Tokens = ReturnType<typeof tokenize>;

/**
 * Numbers such as 1e3 and 2.5e-1, which the engine's lexer takes for a number and a name; nothing else may follow a
 * number so.
 */
function joinExponents(tokens: Tokens): Tokens {
  const out: Tokens = [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i];
    const name = tokens[i + 1];
    if (token.type !== "NumericLiteral" || name?.type !== "Identifier" || !/^[eE]\d*$/.test(name.value)) {
      out.push(token);
      continue;
    }
    let exponent = name.value.slice(1);
    i++;
    if (exponent === "" && tokens[i + 2]?.type === "NumericLiteral") {
      exponent = tokens[i + 1].value + tokens[i + 2].value;
      i += 2;
    }
    const value = Number(`${token.value}e${exponent}`);
    if (!Number.isFinite(value)) throw new SyntaxError(`bad number ${token.value}${name.value}`);
    // A literal counts as a float when it has a point.
    const text = String(value);
    out.push({
      ...token,
      value: text.includes(".") ? text : text.includes("e") ? text.replace("e", ".0e") : `${text}.0`,
    });
  }
  return out;
}

function range(...values: unknown[]): number[] {
  if (values.length < 1 || values.length > 3 || !values.every(Number.isInteger)) {
    throw new Error("range() takes one to three whole numbers");
  }
  const [first, second, step = 1] = values as number[];
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  if (step === 0) throw new Error("range() step must not be zero");
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > rangeMax) throw new Error(`Range too big: more than ${rangeMax} numbers`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}
