import { fileURLToPath } from "node:url";

/** Path of a file or folder in this package's `testdata`. */
export function testdata(name: string): string {
  return fileURLToPath(new URL(`../testdata/${name}`, import.meta.url));
}
