/** The reference data that may lie beside the checkout, in `../shared/golden`; tests skip, and say so, without it. */
import { repositoryRoot } from "../workspace.ts";

/** Path of a file or folder of the reference data ("" is all of it); undefined where it is not there. */
export function goldenPath(name: string): string | undefined {
  const path = `${repositoryRoot()}/../shared/golden/${name}`;
  try {
    Deno.statSync(path);
    return path;
  } catch {
    return undefined;
  }
}

/** The `skip` option of a test that needs a path of `goldenPath`: false, or the reason. */
export function skipWithout(path: string | undefined): false | string {
  return path === undefined ? "needs ../shared/golden" : false;
}
