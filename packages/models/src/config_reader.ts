import { MllmError, quoted } from "@mllm/core";

/**
 * Typed access to the fields of a config.json (or of GGUF metadata). Remembers what was read, so that what a model
 * never looked at can be reported instead of silently dropped.
 */
export class ConfigReader {
  readonly #used = new Set<string>();
  readonly #sections = new Map<string, ConfigReader>();

  /**
   * Starts with nothing read.
   *
   * @param fields parsed JSON object; null counts as absent, as in Hugging Face's files
   * @param file named in errors
   * @param prefix of nested sections, "rope_scaling."
   */
  constructor(
    readonly fields: Readonly<Record<string, unknown>>,
    readonly file: string,
    readonly prefix = "",
  ) {}

  /** Whether the field is there and not null. Does not count as reading it. */
  has(name: string): boolean {
    return Object.hasOwn(this.fields, name) && this.fields[name] !== null && this.fields[name] !== undefined;
  }

  /** The raw value, undefined when absent or null; counts as read. */
  take(name: string): unknown {
    this.#used.add(name);
    return this.has(name) ? this.fields[name] : undefined;
  }

  /** A nested object with a reader of its own; undefined when absent. Throws `invalid_file` when it is no object. */
  section(name: string): ConfigReader | undefined {
    const known = this.#sections.get(name);
    if (known) return known;
    const value = this.take(name);
    if (value === undefined) return undefined;
    if (typeof value !== "object" || Array.isArray(value)) return this.fail(name, "is not an object");
    const section = new ConfigReader(value as Record<string, unknown>, this.file, `${this.prefix}${name}.`);
    this.#sections.set(name, section);
    return section;
  }

  /** Marks fields as looked at: known to have no influence on inference. */
  consume(...names: string[]): void {
    for (const name of names) this.#used.add(name);
  }

  /** Names of fields that nothing read, with their prefix, sorted. */
  ignored(): string[] {
    const own = Object.keys(this.fields).filter((name) => !this.#used.has(name)).map((name) => this.prefix + name);
    return [...own, ...[...this.#sections.values()].flatMap((section) => section.ignored())].sort();
  }

  /** Throws `invalid_file` about a field. */
  fail(name: string, what: string): never {
    throw new MllmError("invalid_file", `${this.prefix}${name} ${what}`, {
      file: this.file,
      next: "Correct the file or download it again",
    });
  }
}

/** Bounds and default of a number; without `default` the field is required. */
export interface NumberField {
  /** Smallest value allowed. */
  min?: number;
  /** Largest value allowed. */
  max?: number;
  /** Value when the field is absent or null. */
  default?: number;
}

function required(config: ConfigReader, name: string): never {
  return config.fail(name, "is missing");
}

/** Short form of a value from outside. */
function show(value: unknown): string {
  if (typeof value === "bigint" || typeof value === "number") return String(value);
  return quoted(typeof value === "string" ? value : JSON.stringify(value) ?? String(value));
}

/**
 * Reads a finite number in [min, max] (unbounded where a bound is absent).
 *
 * @throws MllmError `invalid_file` naming file and field
 */
export function readNumber(config: ConfigReader, name: string, field: NumberField = {}): number {
  const value = config.take(name) ?? field.default ?? required(config, name);
  const { min = -Infinity, max = Infinity } = field;
  if (typeof value !== "number" || !Number.isFinite(value)) return config.fail(name, `is ${show(value)}, not a number`);
  if (value < min || value > max) return config.fail(name, `is ${value}, not in ${min} … ${max}`);
  return value;
}

/** As `readNumber`, for integers; the default range is 1 to 2^31 - 1. */
export function readInt(config: ConfigReader, name: string, field: NumberField = {}): number {
  const { min = 1, max = 2 ** 31 - 1 } = field;
  const value = config.take(name) ?? field.default ?? required(config, name);
  if (typeof value !== "number" || !Number.isSafeInteger(value)) {
    return config.fail(name, `is ${show(value)}, not an integer`);
  }
  if (value < min || value > max) return config.fail(name, `is ${value}, not in ${min} … ${max}`);
  return value;
}

/**
 * Reads true or false; without `default` the field is required.
 *
 * @throws MllmError `invalid_file` naming file and field
 */
export function readBoolean(config: ConfigReader, name: string, field: { default?: boolean } = {}): boolean {
  const value = config.take(name) ?? field.default ?? required(config, name);
  return typeof value === "boolean" ? value : config.fail(name, `is ${show(value)}, not true or false`);
}

/**
 * Reads a string, one of `oneOf` when given; without `default` the field is required.
 *
 * @throws MllmError `invalid_file` when missing or no string, `unsupported` for a value that this engine does not know
 */
export function readString<T extends string = string>(
  config: ConfigReader,
  name: string,
  field: { oneOf?: readonly T[]; default?: T } = {},
): T {
  const value = config.take(name) ?? field.default ?? required(config, name);
  if (typeof value !== "string") return config.fail(name, `is ${show(value)}, not a string`);
  if (field.oneOf && !field.oneOf.includes(value as T)) {
    throw new MllmError(
      "unsupported",
      `${config.prefix}${name} is ${show(value)}, not one of ${field.oneOf.join(", ")}`,
      {
        file: config.file,
        next: "This model needs a later release of the engine",
      },
    );
  }
  return value as T;
}

/**
 * Reads one integer or a list of at most 4,096 in [min, max] (0 to 2^31 - 1 by default), as a list; empty when absent.
 *
 * @throws MllmError `invalid_file` naming file and field
 */
export function readInts(config: ConfigReader, name: string, field: { min?: number; max?: number } = {}): number[] {
  const value = config.take(name);
  if (value === undefined) return [];
  const { min = 0, max = 2 ** 31 - 1 } = field;
  const list = Array.isArray(value) ? value : [value];
  if (list.length > 4096) return config.fail(name, `has ${list.length} entries`);
  for (const item of list) {
    if (typeof item !== "number" || !Number.isSafeInteger(item) || item < min || item > max) {
      return config.fail(name, `holds ${show(item)}, not an integer in ${min} … ${max}`);
    }
  }
  return list;
}
