import { openBackend } from "@mllm/core";
import { runConformance } from "@mllm/core/conformance";
import { testedLevels } from "../../tools/testing/x86_levels.ts";

for (const { level, plugin } of await testedLevels()) {
  runConformance(`x86:${level}`, (threads) => openBackend(plugin, { level, threads, activations: "f32" }));
}
