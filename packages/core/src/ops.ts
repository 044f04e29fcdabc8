/**
 * The ops: one function per row of the op table. They run at once, or are recorded when a tensor belongs to a capture.
 * @module
 */
export * from "./ops/elementwise.ts";
export * from "./ops/norm.ts";
export * from "./ops/softmax.ts";
export * from "./ops/rows.ts";
export * from "./ops/linear.ts";
export * from "./ops/attention.ts";
export type { OutOption, QuantizedOption } from "./ops/call.ts";
