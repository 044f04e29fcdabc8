/** How replies are made: the settings of `/set` in the chat and of the sampling options on command lines. */
import { MllmError } from "@mllm/core";
import { describeRange, isInRange, type NumberRange, samplingDefaults, samplingRanges } from "@mllm/models";
import type { GenerateSettings, SamplingSettings } from "./engine.ts";
import { type OptionSpec, type ParsedOptions, UsageError } from "./options.ts";
import { nearest } from "./suggest.ts";

/** One setting: a number of the sampler (`field`), or one about the generation. */
interface SettingSpec {
  name: string;
  field?: keyof SamplingSettings;
  /** Of numbers; else a setting holds texts. */
  range?: NumberRange;
  doc: string;
  /** What holds when nobody has set it; without this, the sampler's default of `field`. */
  unset?: string;
}

function sampler(name: string, field: keyof SamplingSettings, doc: string, unset?: string): SettingSpec {
  return { name, field, range: samplingRanges[field], doc, unset };
}

const SPECS: readonly SettingSpec[] = [
  sampler("temperature", "temperature", "0 always takes the likeliest token"),
  sampler("top_k", "topK", "the k likeliest tokens; 0: all"),
  sampler("top_p", "topP", "the likeliest that reach p; 1: all"),
  sampler("min_p", "minP", "none below p times the likeliest"),
  sampler("repeat_penalty", "repetitionPenalty", "above 1: avoid repetition"),
  sampler("repeat_last_n", "penaltyLastN", "tokens that penalties see; -1: all"),
  sampler("frequency_penalty", "frequencyPenalty", "per earlier occurrence"),
  sampler("presence_penalty", "presencePenalty", "for having occurred"),
  sampler("seed", "seed", "the same seed gives the same reply", "random"),
  {
    name: "max_tokens",
    range: { min: 1, max: Number.MAX_SAFE_INTEGER, whole: true },
    doc: "most tokens of a reply",
    unset: "no limit",
  },
  { name: "stop", doc: 'ends a reply: /set stop "END" "X"', unset: "none" },
];

/** A setting's value. */
export type SettingValue = number | readonly string[];

/** Who has chosen the value in force: the user, the model's files, or this program. */
export type SettingOrigin = "yours" | "model" | "default";

/** A setting as it is in force, for people. */
export interface SettingRow {
  name: string;
  value: string;
  origin: SettingOrigin;
  doc: string;
}

/** A longer value makes only its own row longer. */
const VALUE_WIDTH_MAX = 10;

/** Rows as a table. */
export function settingsTable(rows: readonly SettingRow[]): string {
  const widest = (column: "name" | "value" | "origin") => Math.max(...rows.map((row) => row[column].length));
  const [names, values, origins] = [widest("name"), Math.min(widest("value"), VALUE_WIDTH_MAX), widest("origin")];
  return rows.map(({ name, value, origin, doc }) =>
    `  ${name.padEnd(names)}  ${value.padEnd(values)}  ${origin.padEnd(origins)}  ${doc}`
  ).join("\n");
}

function shownValue(value: SettingValue): string {
  return typeof value === "number" ? String(value) : value.map((text) => JSON.stringify(text)).join(" ") || "none";
}

/** Texts in quotes (with JSON's escapes) or without blanks. */
function parseTexts(text: string): string[] {
  const out: string[] = [];
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"|\S+/g)) {
    if (!match[0].startsWith('"')) out.push(match[0]);
    else {
      try {
        out.push(JSON.parse(match[0]));
      } catch {
        throw new MllmError("invalid_argument", `${match[0]} is not a text in quotes`);
      }
    }
  }
  return out;
}

/** The error for a setting that is not one of `names`, with a suggestion. */
export function unknownSetting(name: string, names: readonly string[]): MllmError {
  const meant = nearest(name.toLowerCase().replaceAll("-", "_"), names);
  return new MllmError("invalid_argument", `there is no setting "${name}"`, {
    next: meant === undefined ? `There are: ${names.join(", ")}` : `Did you mean ${meant}?`,
  });
}

/** Values that differ from the model's own. */
export class Settings {
  #values = new Map<string, SettingValue>();

  /** Names, in the order of the list. */
  static get names(): string[] {
    return SPECS.map((spec) => spec.name);
  }

  /** Whether there is a setting of that name, or one that is also called so. */
  static has(name: string): boolean {
    return Settings.#find(name) !== undefined;
  }

  static #find(name: string): SettingSpec | undefined {
    const wanted = name.toLowerCase().replaceAll("-", "_");
    return SPECS.find((one) => one.name === (Object.hasOwn(ALIASES, wanted) ? ALIASES[wanted] : wanted));
  }

  static #spec(name: string): SettingSpec {
    const spec = Settings.#find(name);
    if (spec === undefined) throw unknownSetting(name, Settings.names);
    return spec;
  }

  /** Sets from text. Throws `invalid_argument` for an unknown name or a value out of range. */
  setText(name: string, text: string): void {
    const spec = Settings.#spec(name);
    if (spec.range === undefined) {
      this.set(name, parseTexts(text));
      return;
    }
    this.set(name, /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN, text);
  }

  /** Sets a value, checked. */
  set(name: string, value: unknown, shown: string = JSON.stringify(value) ?? "nothing"): void {
    const spec = Settings.#spec(name);
    if (spec.range === undefined) {
      if (!Array.isArray(value) || !value.every((one) => typeof one === "string")) {
        throw new MllmError("invalid_argument", `${spec.name} needs texts, not ${shown}`);
      }
      if (value.includes("")) throw new MllmError("invalid_argument", `${spec.name}: a text of nothing ends no reply`);
      this.#values.set(spec.name, value);
      return;
    }
    if (!isInRange(value, spec.range)) {
      throw new MllmError("invalid_argument", `${spec.name} needs ${describeRange(spec.range)}, not ${shown}`);
    }
    this.#values.set(spec.name, value);
  }

  /** Goes back to the model's own value: of one setting, or of all. */
  reset(name?: string): void {
    if (name === undefined) this.#values.clear();
    else this.#values.delete(Settings.#spec(name).name);
  }

  /** The setting in force with a model that recommends `model`: the user's, else the model's, else the sampler's. */
  row(name: string, model: Readonly<Partial<SamplingSettings>>): SettingRow {
    const { field, unset, doc, ...spec } = Settings.#spec(name);
    const own = this.#values.get(spec.name);
    if (own !== undefined) return { name: spec.name, value: shownValue(own), origin: "yours", doc };
    const recommended = field === undefined ? undefined : model[field];
    if (recommended !== undefined) return { name: spec.name, value: String(recommended), origin: "model", doc };
    const value = unset ?? String(samplingDefaults[field as keyof typeof samplingDefaults]);
    return { name: spec.name, value, origin: "default", doc };
  }

  /** Every setting in force. */
  rows(model: Readonly<Partial<SamplingSettings>>): SettingRow[] {
    return Settings.names.map((name) => this.row(name, model));
  }

  /** What differs from the model's own values, for a file. */
  toJson(): Record<string, SettingValue> {
    return Object.fromEntries(this.#values);
  }

  /** Replaces everything by what `toJson` gave. Throws `invalid_argument` and changes nothing when it is not right. */
  replace(json: Record<string, unknown>): void {
    const fresh = new Settings();
    for (const [name, value] of Object.entries(json)) fresh.set(name, value);
    this.#values = fresh.#values;
  }

  /** For the engine. */
  toGenerate(): GenerateSettings {
    const sampling: Partial<SamplingSettings> = {};
    for (const spec of SPECS) {
      const value = this.#values.get(spec.name);
      if (spec.field !== undefined && typeof value === "number") sampling[spec.field] = value;
    }
    const maxTokens = this.#values.get("max_tokens");
    const stop = this.#values.get("stop");
    return {
      sampling,
      ...(typeof maxTokens === "number" ? { maxTokens } : {}),
      ...(Array.isArray(stop) ? { stopStrings: stop } : {}),
    };
  }
}

const ALIASES: Record<string, string> = {
  temp: "temperature",
  repetition_penalty: "repeat_penalty",
  num_predict: "max_tokens",
  n_predict: "max_tokens",
  stop_strings: "stop",
};

function withDefault(field: keyof typeof samplingDefaults, doc: string): string {
  return `${doc} (default: the model's, else ${samplingDefaults[field]})`;
}

/** The same settings as command-line options. */
export const SAMPLING_OPTIONS: readonly OptionSpec[] = [
  { name: "greedy", doc: "always take the likeliest token (--temp 0)" },
  {
    name: "temp",
    aliases: ["temperature"],
    value: "T",
    doc: withDefault("temperature", "temperature; 0 takes the likeliest token"),
  },
  { name: "top-k", value: "K", doc: withDefault("topK", "only the K likeliest tokens; 0: all") },
  { name: "top-p", value: "P", doc: withDefault("topP", "only the likeliest that together reach P; 1: all") },
  { name: "min-p", value: "P", doc: withDefault("minP", "drop tokens less likely than P times the likeliest") },
  {
    name: "repeat-penalty",
    aliases: ["repetition-penalty"],
    value: "X",
    doc: withDefault("repetitionPenalty", "above 1: avoid repetition"),
  },
  { name: "repeat-last-n", value: "N", doc: withDefault("penaltyLastN", "tokens that penalties see; -1: all") },
  { name: "frequency-penalty", value: "X", doc: withDefault("frequencyPenalty", "penalty per earlier occurrence") },
  { name: "presence-penalty", value: "X", doc: withDefault("presencePenalty", "penalty for having occurred") },
  { name: "seed", value: "N", doc: "the same seed gives the same text (default: a new one each time)" },
  { name: "stop", value: "TEXT", doc: "end before this text appears (may be repeated)" },
];

const OPTION_SETTINGS: Record<string, string> = { temp: "temperature" };

/** The sampling options as settings. Throws UsageError for a value out of range, and for options that contradict. */
export function settingsFromOptions(options: ParsedOptions): Settings {
  const settings = new Settings();
  options.exclude(
    "greedy",
    ["temp", "top-k", "top-p", "min-p"],
    "--greedy takes the likeliest token whatever they say",
  );
  for (const { name } of SAMPLING_OPTIONS) {
    if (name === "greedy" || name === "stop" || !options.has(name)) continue;
    try {
      settings.setText(OPTION_SETTINGS[name] ?? name, options.text(name)!);
    } catch (error) {
      throw new UsageError(`--${name}: ${(error as Error).message}`);
    }
  }
  if (options.integer("repeat-last-n", -1) === 0) {
    const penalties = ["repeat-penalty", "frequency-penalty", "presence-penalty"];
    options.exclude("repeat-last-n", penalties, "With 0 of them penalties see no tokens");
  }
  if (options.has("greedy")) settings.set("temperature", 0);
  const stops = options.texts("stop");
  if (stops.includes("")) throw new UsageError("--stop is empty", "Give the text that ends a reply, or leave it out");
  if (stops.length > 0) settings.set("stop", stops);
  return settings;
}
