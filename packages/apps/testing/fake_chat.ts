/** The chat on the fake model as a real program, for tests with a real terminal. `--slow`: 5 ms a token. */
import { chatMain } from "../src/chat/main.ts";
import { denoHost } from "../src/host.ts";
import { fakeProgram } from "./fake_program.ts";

const slow = Deno.args.includes("--slow");
const args = Deno.args.filter((arg) => arg !== "--slow");
Deno.exit(await chatMain(args, denoHost(), fakeProgram({ tokenMs: slow ? 5 : 0, context: 100_000 })));
