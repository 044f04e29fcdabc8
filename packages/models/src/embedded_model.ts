import { fileURLToPath } from "node:url";

/**
 * Path of the demonstration model that comes with the package: a few million parameters, trained by this repository on
 * questions about itself, small talk and small sums. Its card is `embedded/README.md`.
 *
 * @example
 * ```ts
 * import { x86 } from "@mllm/backend-x86";
 * import { embeddedModelPath, loadModel } from "@mllm/models";
 *
 * using model = await loadModel(embeddedModelPath, { backend: x86 });
 * ```
 */
export const embeddedModelPath: string = fileURLToPath(new URL("../embedded/model.gguf", import.meta.url));
