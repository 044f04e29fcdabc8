/**
 * The Arm backend: named, registered, not there yet.
 * @module
 */
import { type BackendPlugin, MllmError } from "@mllm/core";

/** The plugin: it registers and probes; opening it says what is missing. */
export const arm: BackendPlugin = {
  name: "arm",
  description: "Arm CPUs (NEON, dot product, i8mm)",
  levels: [],
  library: () =>
    Promise.reject(
      new MllmError("unsupported", "backend arm has no kernels yet: its native library is not part of this version", {
        next: "Use the x86 backend on an x86-64 machine",
      }),
    ),
  kernelRows: [],
};
