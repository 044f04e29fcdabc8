/**
 * The Ascend NPU backend: named, registered, not there yet.
 * @module
 */
import { type BackendPlugin, MllmError } from "@mllm/core";

/** The plugin: it registers and probes; opening it says what is missing. */
export const cann: BackendPlugin = {
  name: "cann",
  description: "Ascend NPUs through CANN",
  levels: [],
  library: () =>
    Promise.reject(
      new MllmError(
        "unsupported",
        "backend cann needs an ACLNN executor and the CANN runtime, and this version has neither",
        {
          next: "Use the x86 backend on an x86-64 machine",
        },
      ),
    ),
  kernelRows: [],
};
