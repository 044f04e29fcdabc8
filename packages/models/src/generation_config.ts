import { MllmError } from "@mllm/core";
import { ConfigReader, readInts } from "./config_reader.ts";
import { type CheckedSampling, checkSamplingOptions, type SamplingOptions } from "./sampling/sampler.ts";

/** What a model's makers recommend for generation. */
export interface GenerationDefaults {
  /**
   * Sampler settings; empty where the file has none. Where it has some, those that it leaves out are those of
   * transformers (temperature 1, top-k 50, the others off), not this engine's defaults.
   */
  sampling: Partial<SamplingOptions>;
  /** End-of-sequence ids of the file. */
  eosIds: number[];
}

/**
 * Field of generation_config.json, setting of the Sampler, and the value that transformers takes when it is missing.
 */
const fields: readonly [string, keyof SamplingOptions, number][] = [
  ["temperature", "temperature", 1],
  ["top_k", "topK", 50],
  ["top_p", "topP", 1],
  ["min_p", "minP", 0],
  ["repetition_penalty", "repetitionPenalty", 1],
];

/**
 * Reads the contents of generation_config.json. `do_sample: false` is temperature 0; where the field is missing the
 * settings count as they stand, for whoever recommends a temperature means it (transformers would be greedy then). The
 * repetition penalty looks at all tokens, as in transformers. Fields about other ways of decoding (beams, say) have no
 * meaning here and are left alone.
 *
 * @param config the parsed file; {} or undefined where there is none
 * @param file named in errors
 * @throws MllmError `invalid_file` for a value of the wrong kind or range
 */
export function readGenerationConfig(
  config: Readonly<Record<string, unknown>> | undefined,
  file = "generation_config.json",
): GenerationDefaults {
  const values = config ?? {};
  if (typeof values !== "object" || Array.isArray(values)) {
    throw new MllmError("invalid_file", "is not an object", { file });
  }
  const has = (name: string) => values[name] !== undefined && values[name] !== null;
  const sampling: Record<string, unknown> = {};
  if (fields.some(([name]) => has(name))) {
    for (const [name, setting, missing] of fields) sampling[setting] = has(name) ? values[name] : missing;
    if (has("repetition_penalty")) sampling.penaltyLastN = -1;
  }
  if (has("do_sample") && typeof values.do_sample !== "boolean") {
    throw new MllmError("invalid_file", "do_sample is not true or false", { file });
  }
  if (values.do_sample === false) sampling.temperature = 0;
  try {
    checkSamplingOptions(sampling as Partial<SamplingOptions>);
  } catch (error) {
    const what = error instanceof MllmError ? error.message : String(error);
    throw new MllmError("invalid_file", what, { file, cause: error });
  }
  const eosIds = uniteEosIds(readInts(new ConfigReader(values, file), "eos_token_id"));
  return { sampling: sampling as Partial<SamplingOptions>, eosIds };
}

/**
 * The settings for one generation: what the user gives, else what the model recommends, else the engine's defaults.
 * Settings that are undefined count as not given.
 *
 * @throws MllmError `invalid_argument` naming a setting out of its range
 */
export function mergeSampling(
  model: Readonly<Partial<SamplingOptions>>,
  user: Readonly<Partial<SamplingOptions>> = {},
): CheckedSampling {
  const given = Object.fromEntries(Object.entries(user).filter(([, value]) => value !== undefined));
  return checkSamplingOptions({ ...model, ...given });
}

/** The union of several lists of end-of-sequence ids, in the order in which they first occur. */
export function uniteEosIds(...lists: readonly (readonly number[])[]): number[] {
  return [...new Set(lists.flat())];
}
