/**
 * Building blocks of models.
 * @module
 */
export * from "./nn/module.ts";
export * from "./nn/linear.ts";
export * from "./nn/embedding.ts";
export * from "./nn/rms_norm.ts";
export * from "./nn/rope.ts";
export * from "./nn/rotary_embedding.ts";
