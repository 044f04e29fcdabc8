/** The rules behind one value of GGUF's `tokenizer.ggml.pre`. */
export interface PreTokenizerRules {
  /** Pre-tokenizer in tokenizer.json's form. */
  preTokenizer: unknown;
  /** Normaliser in tokenizer.json's form. */
  normalizer: unknown;
  /** Whether a word that is a token as a whole skips the merges. */
  ignoreMerges: boolean;
  /** Whether BOS is added when the file doesn't say. */
  addBos: boolean;
}

const byteLevel = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
const gpt2 = { type: "ByteLevel", add_prefix_space: false, use_regex: true };

function splits(...regexes: string[]): unknown[] {
  return regexes.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false }));
}

function sequence(...pretokenizers: unknown[]): unknown {
  return { type: "Sequence", pretokenizers };
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const spaces = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const llama3 = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${spaces}`;
const qwen2 = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${spaces}`;
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const cased = (suffix: string) =>
  `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${suffix}|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${suffix}`;
const punctuation = "[\\p{P}\\$\\+<=>\\^~\\|]+";

interface Row {
  names: string[];
  preTokenizer: unknown;
  normalizer?: unknown;
  ignoreMerges?: boolean;
  addBos?: boolean;
}

const nfc = { type: "NFC" };

/**
 * Names that llama.cpp's converter writes, with the pre-tokenizers of the models' own tokenizer.json files (llama.cpp
 * holds the same expressions, adapted to its engine, in src/llama-vocab.cpp).
 */
const rows: readonly Row[] = [
  {
    names: ["qwen2", "deepseek-r1-qwen", "megrez"],
    preTokenizer: sequence(...splits(qwen2), byteLevel),
    normalizer: nfc,
  },
  { names: ["stablelm2", "hunyuan"], preTokenizer: sequence(...splits(qwen2), byteLevel) },
  {
    names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
    preTokenizer: sequence(...splits(llama3), byteLevel),
    ignoreMerges: true,
    addBos: true,
  },
  { names: ["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], preTokenizer: sequence(...splits(llama3), byteLevel) },
  { names: ["gpt-2", "phi-2", "olmo", "jais", "exaone4", "trillion"], preTokenizer: gpt2 },
  { names: ["mpt"], preTokenizer: gpt2, normalizer: nfc },
  {
    names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
    preTokenizer: sequence({ type: "Digits", individual_digits: true }, gpt2),
  },
  {
    names: ["default"],
    preTokenizer: sequence(...splits(punctuation), gpt2, ...splits("\\p{N}+", "[0-9][0-9][0-9]")),
  },
  {
    names: ["falcon"],
    preTokenizer: sequence(...splits("[\\p{P}\\$\\+<=>\\^~\\|`]+"), gpt2, ...splits("[0-9][0-9][0-9]")),
  },
  {
    names: ["deepseek-coder"],
    preTokenizer: sequence(
      ...splits("[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"),
      byteLevel,
    ),
  },
  {
    names: ["deepseek-v3", "hunyuan-dense"],
    preTokenizer: sequence(
      ...splits(
        "\\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+" +
          `| ?[\\p{P}\\p{S}]+[\\r\\n]*|${spaces}`,
      ),
      byteLevel,
    ),
  },
  {
    names: ["tekken"],
    preTokenizer: sequence(
      ...splits(`${cased("")}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${spaces}`),
      byteLevel,
    ),
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ["gpt-4o", "llama4"],
    preTokenizer: sequence(
      ...splits(`${cased(`${contractions}?`)}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${spaces}`),
      byteLevel,
    ),
  },
];

/** Rules for a value of `tokenizer.ggml.pre`, or undefined where the name is unknown. */
export function preTokenizerRules(name: string): PreTokenizerRules | undefined {
  const row = rows.find((row) => row.names.includes(name));
  if (row === undefined) return undefined;
  return {
    preTokenizer: row.preTokenizer,
    normalizer: row.normalizer ?? null,
    ignoreMerges: row.ignoreMerges ?? false,
    addBos: row.addBos ?? false,
  };
}

/** The expressions of all splits in the table. */
export function preTokenizerPatterns(): string[] {
  const patterns: string[] = [];
  // The reviver meets every key at every depth.
  JSON.parse(JSON.stringify(rows), (key, value) => key === "Regex" ? patterns.push(value) : value);
  return patterns;
}

/** All known names, for error messages. */
export function preTokenizerNames(): string[] {
  return rows.flatMap((row) => row.names);
}
