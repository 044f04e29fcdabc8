/** `@std/expect` over npm's expect; see the import map. */
export { expect } from "expect";
