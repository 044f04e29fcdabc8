/**
 * The Qualcomm NPU backend: named, registered, not there yet.
 * @module
 */
import { type BackendPlugin, MllmError } from "@mllm/core";

/** The plugin: it registers and probes; opening it says what is missing. */
export const qnn: BackendPlugin = {
  name: "qnn",
  description: "Qualcomm NPUs through QNN",
  levels: [],
  library: () =>
    Promise.reject(
      new MllmError(
        "unsupported",
        "backend qnn needs a QNN graph builder and the QNN runtime, and this version has neither",
        {
          next: "Use the x86 backend on an x86-64 machine",
        },
      ),
    ),
  kernelRows: [],
};
