/**
 * The variant of a `linear` command: which kernel runs and with which sizes. No variant changes a bit of the result.
 * @module
 */
import { MllmError } from "./errors.ts";
import { LinearMode, LinearVariant as layout } from "./native/abi.ts";

/** What may be asked of `linear`; what is absent is the choice of the level. */
export interface LinearVariant {
  /** "gemv" reads packed codes row by row, "gemm" unpacks them once for all rows; "auto" (default) goes by the rows. */
  readonly mode?: keyof typeof LinearMode;
  /** Rows of activations up to which "auto" is GEMV, 1 to 255. */
  readonly fewRows?: number;
  /** Rows of GEMM's register tile, 1 to 63; where there is none of so many, the next smaller one is taken. */
  readonly tileRows?: number;
  /** Panels of 16 columns that a thread of a GEMV takes at a time, 1 to 4095. */
  readonly run?: number;
  /**
   * How far ahead of its reads a GEMV asks for weights, in steps of 512 bytes, 1 to 15; from 3 on into the second cache,
   * into the first one 1 KiB ahead, and one row reads some panels side by side.
   */
  readonly prefetch?: number;
}

const sizes = ["fewRows", "tileRows", "run", "prefetch"] as const;

/** The number that a command holds. Throws `invalid_argument` for a size out of range. */
export function encodeLinearVariant(variant: LinearVariant): number {
  let code = LinearMode[variant.mode ?? "auto"] << layout.mode.shift;
  for (const name of sizes) {
    const value = variant[name];
    if (value === undefined) continue;
    const max = 2 ** layout[name].bits - 1;
    if (!Number.isInteger(value) || value < 1 || value > max) {
      throw new MllmError("invalid_argument", `${name} of a variant of linear must be 1 to ${max}, not ${value}`);
    }
    code |= value << layout[name].shift;
  }
  return code >>> 0;
}

/** What a command's number asks for; undefined when it is no variant of `linear`. */
export function decodeLinearVariant(code: number): LinearVariant | undefined {
  const field = ({ shift, bits }: { shift: number; bits: number }) => code >>> shift & 2 ** bits - 1;
  const modes = Object.keys(LinearMode) as (keyof typeof LinearMode)[];
  const mode = modes.find((name) => LinearMode[name] === field(layout.mode));
  const isWord = Number.isInteger(code) && code >= 0 && code < 2 ** 32;
  if (!isWord || mode === undefined) return undefined;
  const given = sizes.flatMap((name) => field(layout[name]) === 0 ? [] : [[name, field(layout[name])]]);
  return { ...(mode === "auto" ? {} : { mode }), ...Object.fromEntries(given) };
}
