/**
 * The engine's core: tensors and ops on a backend, capture and replay, neural-network building blocks, file formats.
 *
 * @module
 */
export * from "./src/errors.ts";
export * from "./src/format.ts";
export * from "./src/dtype.ts";
export * from "./src/scalar.ts";
export * from "./src/backend.ts";
export * from "./src/registry.ts";
export * from "./src/kernel_selector.ts";
export * from "./src/linear_variant.ts";
export * from "./src/tensor.ts";
export { EventLoopTurns } from "./src/event_loop.ts";
export { keep, tidy } from "./src/tidy.ts";
export type { Owner } from "./src/storage.ts";
export type { Layout } from "./src/view.ts";
export type { NumberArray } from "./src/host_data.ts";
export { attentionI8TokensMin, LinearMode, maxThreads, type OpName, opTable } from "./src/native/abi.ts";
export * from "./src/ops.ts";
export * from "./src/capture.ts";
export { addCosts, noCost, type OpCost, totalBytes } from "./src/cost.ts";
export { checkKvDType, KvCache, type KvCacheOptions, type KvDType, kvDTypes, type KvLayer } from "./src/kv_cache.ts";
export * from "./src/nn.ts";
export * from "./src/formats/mod.ts";
