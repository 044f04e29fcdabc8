/**
 * File formats: safetensors and GGUF (read, write), JSON within bounds, block quantisation.
 *
 * @module
 */
export * from "./byte_source.ts";
export * from "./gguf.ts";
export { type GgufType, ggufTypes } from "./gguf_cursor.ts";
export * from "./json.ts";
export * from "./safetensors.ts";
export * from "./weight_info.ts";
export { dequantize } from "./quant/dequantize.ts";
export * from "./quant/half.ts";
export { quantizable, quantize } from "./quant/quantize.ts";
