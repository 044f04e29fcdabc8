import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import { mergeSampling, readGenerationConfig, uniteEosIds } from "./generation_config.ts";

describe("generation config", () => {
  it("reads Qwen's recommendations", () => {
    const config = {
      do_sample: true,
      temperature: 0.6,
      top_k: 20,
      top_p: 0.95,
      eos_token_id: [5, 3, 5],
      pad_token_id: 3,
    };
    const { sampling, eosIds } = readGenerationConfig(config);
    assertEquals(eosIds, [5, 3]);
    assertEquals(sampling, { temperature: 0.6, topK: 20, topP: 0.95, minP: 0, repetitionPenalty: 1 });
  });
  it("is empty without a file, greedy without sampling", () => {
    assertEquals(readGenerationConfig(undefined), { sampling: {}, eosIds: [] });
    assertEquals(readGenerationConfig({ do_sample: false, eos_token_id: 7 }), {
      sampling: { temperature: 0 },
      eosIds: [7],
    });
    assertEquals(readGenerationConfig({ repetition_penalty: 1.1, top_p: null }).sampling, {
      temperature: 1,
      topK: 50,
      topP: 1,
      minP: 0,
      repetitionPenalty: 1.1,
      penaltyLastN: -1,
    });
  });
  it("lets the user override, but not with undefined", () => {
    const merged = mergeSampling({ temperature: 0.6, topK: 20 }, { topK: 3, temperature: undefined });
    assertEquals([merged.temperature, merged.topK, merged.topP], [0.6, 3, 0.95]);
    assertThrows(() => mergeSampling({}, { topP: 2 }), MllmError, "topP");
  });
  it("unites end ids", () => assertEquals(uniteEosIds([1, 2], [], [2, 3]), [1, 2, 3]));
  it("refuses broken files", () => {
    for (
      const config of [{ temperature: "hot" }, { top_p: 7 }, { top_k: -1 }, { do_sample: 1 }, { eos_token_id: -1 }, {
        eos_token_id: ["a"],
      }, { eos_token_id: 1.5 }]
    ) {
      assertEquals(
        assertThrows(() => readGenerationConfig(config, "g.json"), MllmError, "g.json").code,
        "invalid_file",
      );
    }
  });
});
