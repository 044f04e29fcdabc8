/** The part of `@std/assert` that this repository uses, over node:assert; see the import map. */
import assert from "node:assert/strict";

/** Fails unless `value` is truthy. */
export function assertTrue(value: unknown, message?: string): asserts value {
  assert.ok(value, message!);
}
export { assertTrue as assert };
/** Deep strict equality. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  assert.deepStrictEqual(actual, expected, message!);
}
/** Deep strict inequality. */
export function assertNotEquals<T>(actual: T, expected: T, message?: string): void {
  assert.notDeepStrictEqual(actual, expected, message!);
}
/** Fails unless |actual - expected| <= tolerance. */
export function assertAlmostEquals(actual: number, expected: number, tolerance = 1e-7, message?: string): void {
  assert.ok(
    Object.is(actual, expected) || Math.abs(actual - expected) <= tolerance,
    message ?? `${actual} is not within ${tolerance} of ${expected}`,
  );
}
/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, message?: string): void {
  assert.ok(
    actual.includes(expected),
    message ?? `${JSON.stringify(actual)} does not include ${JSON.stringify(expected)}`,
  );
}
/** Fails unless `actual` matches. */
export function assertMatch(actual: string, expected: RegExp, message?: string): void {
  assert.match(actual, expected, message!);
}
// deno-lint-ignore no-explicit-any
type ErrorClass<E> = abstract new (...args: any[]) => E;
function checkError<E extends Error>(error: unknown, kind?: ErrorClass<E>, text?: string): E {
  if (kind) assert.ok(error instanceof kind, `expected ${kind.name}, got ${error}`);
  if (text) assertStringIncludes((error as Error).message, text);
  return error as E;
}
/** Fails unless `fn` throws an error of that class whose message includes `text`; returns the error. */
export function assertThrows<E extends Error = Error>(fn: () => unknown, kind?: ErrorClass<E>, text?: string): E {
  try {
    fn();
  } catch (error) {
    return checkError(error, kind, text);
  }
  return assert.fail("expected the function to throw");
}
/** As assertThrows, for promises. */
export async function assertRejects<E extends Error = Error>(
  fn: () => Promise<unknown>,
  kind?: ErrorClass<E>,
  text?: string,
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return checkError(error, kind, text);
  }
  return assert.fail("expected the promise to reject");
}
