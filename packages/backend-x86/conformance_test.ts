import { MllmError, openBackend, probeBackend } from "@mllm/core";
import { runConformance } from "@mllm/core/conformance";
import { x86 } from "./mod.ts";

const { available, reason, levels } = await probeBackend(x86);
if (!available) throw new MllmError("not_found", `the x86 backend is needed: ${reason}`);
for (const level of levels) {
  runConformance(`x86:${level}`, (threads) => openBackend(x86, { level, threads, activations: "f32" }));
}
