/**
 * Command-line options from one table: parsing (by node:util's parseArgs), checks, and the help text.
 */
import { parseArgs } from "node:util";
import { MllmError } from "@mllm/core";
import { nearest } from "./suggest.ts";

/** The command line is wrong: exit code 2. */
export class UsageError extends MllmError {
  constructor(what: string, next?: string) {
    super("invalid_argument", what, { next });
  }
}

/** One option. Without `value` it is a switch. */
export interface OptionSpec {
  name: string;
  short?: string;
  /** Other names it answers to. */
  aliases?: readonly string[];
  /** Name of its value in the help text. */
  value?: string;
  doc: string;
}

/** Options as given, with checks on access. */
export class ParsedOptions {
  readonly positionals: readonly string[];
  #values: Map<string, string[]>;

  constructor(values: Map<string, string[]>, positionals: readonly string[]) {
    this.#values = values;
    this.positionals = positionals;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }
  /** Every value given for an option that may be repeated. */
  texts(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }
  /** The last value given. */
  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }
  /** The value given. Throws UsageError when there are several: of inputs none is meant to go unread. */
  single(name: string): string | undefined {
    if (this.texts(name).length > 1) throw new UsageError(`${dashed(name)} is given more than once`, "Give one");
    return this.text(name);
  }
  /** Throws UsageError where an option stands beside one of `others`; `why` is a sentence. */
  exclude(name: string, others: readonly string[], why: string): void {
    const other = this.has(name) ? others.find((one) => this.has(one)) : undefined;
    if (other !== undefined) throw new UsageError(`${dashed(name)} and ${dashed(other)} exclude each other`, why);
  }
  /** The value given. Throws UsageError when there is none, or several. */
  required(name: string, hint: string): string {
    const value = this.single(name);
    if (value === undefined) throw new UsageError(`${dashed(name)} is missing`, hint);
    if (value === "") throw new UsageError(`${dashed(name)} is empty`, hint);
    return value;
  }
  integer(name: string, min: number, max = Number.MAX_SAFE_INTEGER): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : parseInteger(dashed(name), text, min, max);
  }
  /** A comma list of whole numbers. */
  integers(name: string, min: number, max = Number.MAX_SAFE_INTEGER): number[] | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    return text.split(",").map((part) => parseInteger(dashed(name), part.trim(), min, max));
  }
  oneOf<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const text = this.text(name);
    if (text === undefined || (choices as readonly string[]).includes(text)) return text as T | undefined;
    const meant = nearest(text, choices);
    throw new UsageError(
      `${dashed(name)} can't be "${text}"`,
      meant === undefined ? `It is one of ${choices.join(", ")}` : `Did you mean ${meant}?`,
    );
  }
}

function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

/** A whole number within bounds. Throws UsageError that names `what`. */
export function parseInteger(what: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!/^[+-]?\d+$/.test(text) || value < min || value > max) {
    const range = `from ${min} to ${max}`;
    throw new UsageError(`${what} needs a whole number ${range}, not "${text}"`);
  }
  return value;
}

/** Parses `args` by the table. Throws UsageError for what is unknown, incomplete or too much. */
export function parseOptions(
  args: readonly string[],
  specs: readonly OptionSpec[],
  { positionalsMax = 0 }: { positionalsMax?: number } = {},
): ParsedOptions {
  const byName = new Map<string, OptionSpec>();
  for (const spec of specs) {
    for (const name of [spec.name, ...(spec.aliases ?? [])]) byName.set(name, spec);
  }
  const options: Record<string, { type: "boolean" | "string"; short?: string; multiple: true }> = {};
  for (const [name, spec] of byName) {
    const short = name === spec.name ? spec.short : undefined;
    const type = spec.value === undefined ? "boolean" as const : "string" as const;
    options[name] = { type, ...(short === undefined || short === name ? {} : { short }), multiple: true };
  }
  // Not strict, so that the messages are ours; a value may begin with a dash ("-p -1", "-p --help me").
  const { tokens } = parseArgs({ args: [...args], options, strict: false, allowPositionals: true, tokens: true });
  const values = new Map<string, string[]>();
  const positionals: string[] = [];
  for (const token of tokens ?? []) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const spec = byName.get(token.name);
    if (spec === undefined) throw unknownOption(token.rawName, byName.keys(), specs);
    if (spec.value === undefined && token.value !== undefined) throw new UsageError(`${token.rawName} takes no value`);
    if (spec.value !== undefined && token.value === undefined) {
      throw new UsageError(`${token.rawName} needs a value: ${token.rawName} ${spec.value}`);
    }
    if (token.value?.startsWith("=") && token.inlineValue && !token.rawName.startsWith("--")) {
      const value = token.value.slice(1);
      throw new UsageError(
        `${token.rawName} takes its value without "="`,
        `Write ${token.rawName} ${value} or --${spec.name}=${value}`,
      );
    }
    values.set(spec.name, [...(values.get(spec.name) ?? []), token.value ?? ""]);
  }
  if (positionals.length > positionalsMax) {
    throw new UsageError(`there is no place for "${positionals[positionalsMax]}"`, "Put a text with blanks in quotes");
  }
  return new ParsedOptions(values, positionals);
}

function unknownOption(raw: string, names: Iterable<string>, specs: readonly OptionSpec[]): UsageError {
  const bare = raw.replace(/^-+/, "");
  const shorts = specs.flatMap((spec) => spec.short === undefined ? [] : [spec.short]);
  const meant = bare.length === 1
    ? shorts.find((short) => short.toLowerCase() === bare.toLowerCase())
    : nearest(bare, names);
  return new UsageError(
    `there is no option ${raw}`,
    meant === undefined ? "--help lists the options" : `Did you mean ${dashed(meant)}?`,
  );
}

/** The option table as text, in two columns. */
export function helpText(specs: readonly OptionSpec[]): string {
  const left = specs.map((spec) => {
    const names = [spec.short === undefined ? "   " : `-${spec.short},`, `--${spec.name}`].join(" ");
    return `  ${names}${spec.value === undefined ? "" : ` ${spec.value}`}`;
  });
  const width = Math.max(...left.map((text) => text.length)) + 2;
  return specs.map((spec, i) => `${left[i].padEnd(width)}${spec.doc}`).join("\n");
}
