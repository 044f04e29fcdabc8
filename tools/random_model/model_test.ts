import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { dequantize, encodeGguf, MllmError, readGguf, readWeight, type TextList } from "@mllm/core";
import { createTokenizer, inspectModel } from "@mllm/models";
import { randomModel, writeRandomModel } from "./model.ts";
import { shapes } from "./shapes.ts";
import { vocabularyMetadata } from "./vocabulary.ts";

describe("writeRandomModel", () => {
  for (const name of ["tiny", "tiny-untied", "odd", "odd-qwen2"]) {
    it(`${name} opens with the right shapes, scale and tokenizer`, async () => {
      const path = Deno.makeTempFileSync({ suffix: ".gguf" });
      try {
        const shape = shapes[name];
        await writeRandomModel(path, { shape, type: "q4_0" });
        const { checkpoint, config } = await inspectModel(path);
        assertEquals([config.hiddenSize, config.vocabSize], [shape.hiddenSize, shape.vocabSize]);
        assertEquals(checkpoint.weights.has("lm_head.weight"), !shape.tied);
        const info = checkpoint.weights.get("model.layers.0.mlp.up_proj.weight")!;
        assertEquals(info.dtype, shape.hiddenSize % 32 === 0 ? "q4_0" : "f16");
        const values = dequantize(info.dtype, readWeight(info), shape.hiddenSize * shape.intermediateSize);
        const deviation = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
        assert(Math.abs(deviation - 0.02) < 0.002, String(deviation));
        const tokenizer = createTokenizer(checkpoint.tokenizer);
        const text = "hello there 123 \n é漢🎉";
        assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
        assertEquals(tokenizer.eosIds.length, 2);
      } finally {
        Deno.removeSync(path);
      }
    });
  }

  it("gives the same bytes for the same seed only", () => {
    const bytes = (seed: number) => encodeGguf(randomModel({ shape: shapes.odd, type: "f16", seed }));
    const [first, same, other] = [bytes(1), bytes(1), bytes(2)];
    assert(first.length === same.length && first.every((byte, i) => byte === same[i]));
    assert(!first.every((byte, i) => byte === other[i]));
  });

  it("refuses a vocabulary without room for the bytes", async () => {
    const shape = { ...shapes.tiny, vocabSize: 100 };
    await assertRejects(() => writeRandomModel("unused.gguf", { shape, type: "q8_0" }), MllmError, "261 tokens");
  });

  it("makes 151,936 different tokens that parse within 150 ms in the usual case", () => {
    const file = encodeGguf({ metadata: vocabularyMetadata(151936), tensors: [] });
    const start = performance.now();
    const { metadata } = readGguf(file);
    const ms = performance.now() - start;
    const tokens = [...metadata.get("tokenizer.ggml.tokens") as TextList];
    assertEquals(new Set(tokens).size, 151936);
    assertEquals([tokens[151643], tokens[151645]], ["<|endoftext|>", "<|im_end|>"]);
    assert(ms < 600, `${ms} ms`);
  });
});
