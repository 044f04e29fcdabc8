import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import { ConfigReader } from "../config_reader.ts";
import { type DecoderConfig, readDecoderConfig } from "./config.ts";

function read(fields: Record<string, unknown>): DecoderConfig {
  const config = {
    hidden_act: "silu",
    hidden_size: 64,
    intermediate_size: 64,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    vocab_size: 10,
    max_position_embeddings: 40960,
    rms_norm_eps: 1e-6,
    ...fields,
  };
  return readDecoderConfig(new ConfigReader(config, "config.json"), { modelType: "qwen3", attentionBias: false });
}

function refusal(fields: Record<string, unknown>, text: string): string {
  const error = assertThrows(() => read(fields), MllmError, text);
  assertEquals(error.file, "config.json");
  return error.code;
}

describe("readDecoderConfig", () => {
  it("takes the context that YaRN reaches, as in Qwen's recipe", () => {
    const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 32768 };
    assertEquals(read({ rope_scaling: yarn }).maxPositionEmbeddings, 131072);
    assertEquals(read({}).maxPositionEmbeddings, 40960);
  });
  it("refuses scaling that grows with the sequence, and values without meaning", () => {
    assertEquals(refusal({ rope_scaling: { rope_type: "dynamic", factor: 2 } }, "use yarn"), "unsupported");
    assertEquals(refusal({ rope_scaling: { rope_type: "linear", factor: 0 } }, "factor must be"), "invalid_file");
  });
  it("wants to know window and layers where windows are used", () => {
    const windows = { use_sliding_window: true, sliding_window: 8, max_window_layers: 2 };
    assertEquals(read(windows).slidingWindows, [undefined, undefined, 8]);
    assertEquals(read({ ...windows, use_sliding_window: false }).slidingWindows, [undefined, undefined, undefined]);
    for (const name of ["sliding_window", "max_window_layers"]) {
      assertEquals(refusal({ ...windows, [name]: undefined }, `${name} is missing although`), "invalid_file");
    }
  });
});
