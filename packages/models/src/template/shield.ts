import { MllmError } from "@mllm/core";
import type { TextRange } from "../tokenizer/added_tokens.ts";

/** First and last of the private-use characters that stand in for control tokens while a template runs. */
const [placeholderFirst, placeholderLast] = [0xe000, 0xf8ff];
const depthMax = 64;

/**
 * Hides control tokens in texts behind single private-use characters, and finds them again in what a template made of
 * the texts. Also hidden are a beginning of one at the end of a text and an ending of one at the start: two texts that
 * a template joins must not make a control token either.
 */
export class Shield {
  readonly #specials: readonly string[];
  readonly #pattern: RegExp | undefined;
  readonly #used: Set<string>;
  readonly #placeholders = new Map<string, string>();
  readonly #texts = new Map<string, string>();
  #next = placeholderFirst;

  /**
   * @param specials texts of the control tokens
   * @param surroundings everything else that the template sees; placeholders are characters that don't occur in it
   */
  constructor(specials: readonly string[], surroundings: string) {
    this.#specials = specials;
    const sorted = [...specials].sort((a, b) => b.length - a.length);
    const escaped = sorted.map((text) => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
    this.#pattern = sorted.length === 0 ? undefined : new RegExp(escaped.join("|"), "g");
    this.#used = new Set(surroundings.match(/[\uE000-\uF8FF]/g));
  }

  /** Whether anything had to be hidden. */
  get active(): boolean {
    return this.#texts.size > 0;
  }

  /** Hides control tokens in every text of a value, keys included. */
  hide(value: unknown, depth = 0): unknown {
    if (depth > depthMax) throw new MllmError("invalid_argument", "the chat messages are nested too deeply");
    if (typeof value === "string") return this.#hideText(value);
    if (Array.isArray(value)) return value.map((item) => this.hide(item, depth + 1));
    if (typeof value !== "object" || value === null) return value;
    const entries = Object.entries(value).map(([key, item]) => [this.#hideText(key), this.hide(item, depth + 1)]);
    return Object.fromEntries(entries);
  }

  /** Puts the hidden texts back and says where they are. */
  restore(rendered: string): { text: string; plain: TextRange[] } {
    const plain: TextRange[] = [];
    let text = "";
    let done = 0;
    for (const match of rendered.matchAll(/[\uE000-\uF8FF]/g)) {
      const hidden = this.#texts.get(match[0]);
      if (hidden === undefined) continue;
      text += rendered.slice(done, match.index);
      plain.push([text.length, text.length + hidden.length]);
      text += hidden;
      done = match.index + 1;
    }
    return { text: text + rendered.slice(done), plain };
  }

  #hideText(text: string): string {
    if (this.#pattern === undefined) return text;
    const whole = text.replace(this.#pattern, (special) => this.#placeholder(special));
    // Templates trim, so the ends are those of the trimmed text.
    const body = whole.trim();
    if (body === "") return whole;
    const start = whole.indexOf(body);
    const head = this.#overlap(body, (special, n) => body.startsWith(special.slice(-n)));
    const tail = this.#overlap(body.slice(head), (special, n) => body.endsWith(special.slice(0, n)));
    return whole.slice(0, start) + this.#part(body.slice(0, head)) + body.slice(head, body.length - tail) +
      this.#part(body.slice(body.length - tail)) + whole.slice(start + body.length);
  }

  /** Length of the longest proper part of a control token for which `fits`. */
  #overlap(text: string, fits: (special: string, length: number) => boolean): number {
    let longest = 0;
    for (const special of this.#specials) {
      for (let n = Math.min(special.length - 1, text.length); n > longest; n--) {
        if (fits(special, n)) longest = n;
      }
    }
    return longest;
  }

  #part(text: string): string {
    return text === "" ? "" : this.#placeholder(text);
  }

  #placeholder(text: string): string {
    const known = this.#placeholders.get(text);
    if (known !== undefined) return known;
    let character: string;
    do {
      if (this.#next > placeholderLast) {
        throw new MllmError("invalid_argument", "the chat messages hold too many different control tokens");
      }
      character = String.fromCharCode(this.#next++);
    } while (this.#used.has(character));
    this.#placeholders.set(text, character);
    this.#texts.set(character, text);
    return character;
  }
}
