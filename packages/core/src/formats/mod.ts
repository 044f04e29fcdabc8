/**
 * File formats: safetensors and GGUF (read, write), JSON within bounds, block quantisation.
 *
 * @module
 */
export {
  type ByteSource,
  fileExists,
  FileSource,
  MemorySource,
  readWholeFile,
  statFile,
  wrapIo,
} from "./byte_source.ts";
export { type GgufArray, type GgufFile, type GgufValue, openGguf, readGguf } from "./gguf.ts";
export { type GgufType, ggufTypes } from "./gguf_cursor.ts";
export {
  encodeGguf,
  type GgufContent,
  ggufF32,
  type GgufInput,
  type GgufTensorData,
  ggufU32,
  writeGguf,
} from "./gguf_writer.ts";
export { type Json, type JsonLimits, parseJson, readJsonObject } from "./json.ts";
export { dequantize } from "./quant/dequantize.ts";
export { bf16FromF32Bits, f16FromF32Bits, f32Bits, f32FromBits, fromF16, toF16 } from "./quant/half.ts";
export { quantizable, quantize } from "./quant/quantize.ts";
export { openSafetensors, readSafetensors, type SafetensorsFile } from "./safetensors.ts";
export { encodeSafetensors, type TensorData, writeSafetensors } from "./safetensors_writer.ts";
export { TextList } from "./text_list.ts";
export { quoted, readWeight, type WeightInfo } from "./weight_info.ts";
