/**
 * The programs of this project: the chat and the `mllm` command line, over any engine and any host.
 *
 * @module
 */
export { chatMain, type ChatProgram, type FindEmbeddedModel } from "./src/chat/main.ts";
export { mllmMain } from "./src/cli/main.ts";
export * from "./src/engine.ts";
export { denoHost, type Host, type HostSignal, type Input, type Output } from "./src/host.ts";
export { openProgram } from "./src/open_engine.ts";
