/** `@std/testing/bdd` over node:test, so that tests run where JSR can't be reached; see the import map. */
export { after as afterAll, afterEach, before as beforeAll, beforeEach, describe, it } from "node:test";
