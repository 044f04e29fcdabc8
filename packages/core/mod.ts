export * from "./src/errors.ts";
export * from "./src/formats/mod.ts";
