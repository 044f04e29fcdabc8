/**
 * Frequencies of rotary embeddings, as Hugging Face transformers' `modeling_rope_utils.py` defines them.
 * @module
 */
import { MllmError } from "../errors.ts";

/** How frequencies are scaled for contexts beyond the trained one. */
export type RopeType = "default" | "linear" | "dynamic" | "llama3" | "yarn";

/** What `rope_theta`, `rope_scaling` and `rope_parameters` of a config say. */
export interface RopeParameters {
  /** Kind of scaling: `rope_type`. */
  readonly type: RopeType;
  /** Base of the frequencies, theta^(-2i / rotaryDim); 10000 when the config has none. */
  readonly theta: number;
  /** Dims that are turned: headDim, or a part of it. */
  readonly rotaryDim: number;
  /** The config's `max_position_embeddings`. */
  readonly maxPosition?: number;
  /** How many times the context is longer. */
  readonly factor?: number;
  /** The trained context, where scaling is relative to it. */
  readonly originalMaxPosition?: number;
  /** llama3: wavelengths above original / this are stretched fully. */
  readonly lowFrequencyFactor?: number;
  /** llama3: wavelengths below original / this are kept. */
  readonly highFrequencyFactor?: number;
  /** YaRN: dims that turn more often over the trained context are kept; 32 when absent. */
  readonly betaFast?: number;
  /** YaRN: dims that turn less often are stretched fully; 1 when absent. */
  readonly betaSlow?: number;
  /** YaRN: factor of sine and cosine, instead of the one that follows from `factor`. */
  readonly attentionFactor?: number;
  /** YaRN (DeepSeek): numerator of the attention factor. */
  readonly mscale?: number;
  /** YaRN (DeepSeek): its denominator. */
  readonly mscaleAllDim?: number;
  /** YaRN: whether the range of dims is rounded to whole dims; true when absent. */
  readonly truncate?: boolean;
}

/** What `RotaryEmbedding` needs: the frequencies of the pairs, and the factor of sine and cosine. */
export interface RopeFrequencies {
  /** [rotaryDim / 2], in radians per token. */
  readonly invFreq: Float32Array<ArrayBuffer>;
  /** Factor of sine and cosine; 1 but for YaRN. */
  readonly attentionFactor: number;
}

/** The parsed config.json of a model. */
export type RopeConfig = Readonly<Record<string, unknown>>;

/** Every key of `rope_scaling` and `rope_parameters` that is understood. */
const knownKeys = new Set([
  "type",
  "rope_type",
  "rope_theta",
  "factor",
  "original_max_position_embeddings",
  "low_freq_factor",
  "high_freq_factor",
  "beta_fast",
  "beta_slow",
  "attention_factor",
  "mscale",
  "mscale_all_dim",
  "truncate",
  "partial_rotary_factor",
  "max_position_embeddings",
]);

/** Keys that may be 0: no rotation bounds the ramp, or no mscale. */
const zeroKeys = new Set(["beta_fast", "beta_slow", "mscale", "mscale_all_dim"]);

/**
 * Reads the rotary parameters of a config: `rope_theta` with `rope_scaling`, or the newer `rope_parameters`.
 * Throws `unsupported` for another kind of scaling or a key that is not understood, `invalid_file` for bad values.
 */
export function ropeParameters(config: RopeConfig): RopeParameters {
  const scaling = objectOf(config, "rope_parameters") ?? objectOf(config, "rope_scaling") ?? {};
  for (const key of Object.keys(scaling)) {
    if (!knownKeys.has(key)) throw new MllmError("unsupported", `rope: the parameter "${key}" is not known`);
  }
  const type = String(scaling.rope_type ?? scaling.type ?? "default");
  if (!["default", "linear", "dynamic", "llama3", "yarn"].includes(type)) {
    throw new MllmError("unsupported", `rope: scaling of type "${type}" is not known`, {
      next: "There are default, linear, dynamic, llama3 and yarn",
    });
  }
  const heads = number(config, "num_attention_heads");
  const hidden = number(config, "hidden_size");
  const headDim = number(config, "head_dim") ?? (heads && hidden ? Math.floor(hidden / heads) : undefined);
  if (headDim === undefined) throw new MllmError("invalid_file", "rope: the config has no head_dim");
  const partial = number(scaling, "partial_rotary_factor") ?? number(config, "partial_rotary_factor") ?? 1;
  const rotaryDim = Math.floor(headDim * partial);
  if (rotaryDim < 2 || rotaryDim % 2 !== 0 || rotaryDim > headDim) {
    throw new MllmError("invalid_file", `rope: ${rotaryDim} of ${headDim} dims can't be turned in pairs`);
  }
  return {
    type: type as RopeType,
    theta: number(scaling, "rope_theta") ?? number(config, "rope_theta") ?? 10000,
    rotaryDim,
    maxPosition: number(config, "max_position_embeddings"),
    factor: number(scaling, "factor"),
    originalMaxPosition: number(scaling, "original_max_position_embeddings") ??
      number(config, "original_max_position_embeddings"),
    lowFrequencyFactor: number(scaling, "low_freq_factor"),
    highFrequencyFactor: number(scaling, "high_freq_factor"),
    betaFast: number(scaling, "beta_fast"),
    betaSlow: number(scaling, "beta_slow"),
    attentionFactor: number(scaling, "attention_factor"),
    mscale: number(scaling, "mscale"),
    mscaleAllDim: number(scaling, "mscale_all_dim"),
    truncate: typeof scaling.truncate === "boolean" ? scaling.truncate : undefined,
  };
}

/**
 * The frequencies: computed in f64, rounded to f32. `sequenceLength` matters to "dynamic" only, whose base grows with
 * the sequence beyond `maxPosition`. Throws `invalid_file` when a parameter is missing, or where the parameters give no
 * finite frequencies.
 */
export function ropeFrequencies(parameters: RopeParameters, sequenceLength = 0): RopeFrequencies {
  const { type } = parameters;
  const invFreq = Float32Array.from(kinds[type](parameters, sequenceLength));
  const attentionFactor = type === "yarn" ? yarnAttention(parameters) : 1;
  if (!Number.isFinite(attentionFactor) || !invFreq.every(Number.isFinite)) {
    throw new MllmError("invalid_file", `rope: the parameters of type ${type} give no finite frequencies`);
  }
  return { invFreq, attentionFactor };
}

/**
 * Tokens of the longest sequence that the frequencies are meant for: `maxPosition`, or what "linear" and "yarn" stretch
 * the trained context to, if that is more. undefined when the config has no `max_position_embeddings`.
 */
export function ropeContextMax(parameters: RopeParameters): number | undefined {
  const { type, maxPosition, originalMaxPosition = maxPosition, factor = 1 } = parameters;
  if (maxPosition === undefined || originalMaxPosition === undefined || (type !== "linear" && type !== "yarn")) {
    return maxPosition;
  }
  return Math.max(maxPosition, Math.floor(originalMaxPosition * factor));
}

const kinds: Record<RopeType, (parameters: RopeParameters, sequenceLength: number) => number[]> = {
  default: ({ theta, rotaryDim }) => plain(theta, rotaryDim),
  linear: (p) => plain(p.theta, p.rotaryDim).map((f) => f / need(p, "factor")),
  dynamic: dynamicNtk,
  llama3,
  yarn,
};

/** theta^(-2i / dim) */
function plain(theta: number, dim: number): number[] {
  return Array.from({ length: dim / 2 }, (_, i) => 1 / theta ** ((2 * i) / dim));
}

function dynamicNtk(p: RopeParameters, sequenceLength: number): number[] {
  const [factor, max, dim] = [need(p, "factor"), need(p, "maxPosition"), p.rotaryDim];
  const length = Math.max(sequenceLength, max);
  return plain(p.theta * ((factor * length) / max - (factor - 1)) ** (dim / (dim - 2)), dim);
}

/** Llama 3.1: long wavelengths are stretched, short ones kept, those between blended. */
function llama3(p: RopeParameters): number[] {
  const factor = need(p, "factor");
  const [low, high] = [need(p, "lowFrequencyFactor"), need(p, "highFrequencyFactor")];
  const original = need(p, "originalMaxPosition");
  return plain(p.theta, p.rotaryDim).map((f) => {
    const wavelength = (2 * Math.PI) / f;
    if (wavelength < original / high) return f;
    if (wavelength > original / low) return f / factor;
    const smooth = (original / wavelength - low) / (high - low);
    return ((1 - smooth) * f) / factor + smooth * f;
  });
}

/** YaRN (Peng et al. 2023): interpolated and extrapolated frequencies, blended along a ramp over the dims. */
function yarn(p: RopeParameters): number[] {
  const { theta, rotaryDim: dim, betaFast = 32, betaSlow = 1, truncate = true } = p;
  const original = yarnOriginal(p);
  const factor = yarnFactor(p);
  const correction = (rotations: number) =>
    (dim * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = correction(betaFast);
  let high = correction(betaSlow);
  if (truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  if (low === high) high += 0.001;
  return plain(theta, dim).map((f, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return (f / factor) * ramp + f * (1 - ramp);
  });
}

function yarnAttention(p: RopeParameters): number {
  if (p.attentionFactor !== undefined) return p.attentionFactor;
  const factor = yarnFactor(p);
  const scale = (mscale: number) => factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
  return p.mscale && p.mscaleAllDim ? scale(p.mscale) / scale(p.mscaleAllDim) : scale(1);
}

function yarnOriginal(p: RopeParameters): number {
  return p.originalMaxPosition ?? need(p, "maxPosition");
}

function yarnFactor(p: RopeParameters): number {
  return p.factor ?? need(p, "maxPosition") / yarnOriginal(p);
}

function need(parameters: RopeParameters, key: keyof RopeParameters): number {
  const value = parameters[key];
  if (typeof value !== "number") throw new MllmError("invalid_file", `rope: type ${parameters.type} needs ${key}`);
  return value;
}

function objectOf(config: RopeConfig, key: string): RopeConfig | undefined {
  const value = config[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new MllmError("invalid_file", `config: ${key} is not an object`);
  }
  return value as RopeConfig;
}

function number(config: RopeConfig, key: string): number | undefined {
  const value = config[key];
  if (value === undefined || value === null) return undefined;
  const mayBeZero = zeroKeys.has(key);
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0 || (value === 0 && !mayBeZero)) {
    const what = mayBeZero ? "a number of at least 0" : "a positive number";
    throw new MllmError("invalid_file", `config: ${key} must be ${what}, not ${JSON.stringify(value)}`);
  }
  return value;
}
