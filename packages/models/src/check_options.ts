/** Options as they come from programs that nobody type-checks. */
import { MllmError } from "@mllm/core";

/**
 * Refuses what is no object, and options that do not exist, which would be without effect.
 *
 * @param known has a field for each that does
 * @throws {MllmError} `invalid_argument`
 */
export function checkNames(call: string, given: object, known: Readonly<Record<string, unknown>>): void {
  if (typeof given !== "object" || given === null) {
    throw new MllmError("invalid_argument", `the options of ${call} must be an object, not ${shown(given)}`);
  }
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(known, name));
  if (unknown === undefined) return;
  throw new MllmError("invalid_argument", `${call} has no option ${JSON.stringify(unknown)}`, {
    next: `There are: ${Object.keys(known).join(", ")}`,
  });
}

/** A value in messages: of numbers NaN is told from null, and of texts "5" from 5. */
export function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
