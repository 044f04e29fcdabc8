/** `mllm tune`: measures which kernels are fastest here, and keeps the result. */
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { ProgressBar } from "../terminal/progress.ts";
import { type Command, JSON_OPTION } from "./command.ts";

export const tuneCommand: Command = {
  name: "tune",
  usage: "[-m MODEL] [--force]",
  doc: "measure which kernels are fastest on this machine, for all later runs",
  details:
    "Tries candidates for each shape of the model in turns: GEMV or GEMM, tile sizes, thread numbers. Without a\n" +
    "model: shapes of usual sizes from 0.5 to 8 billion weights in q4_0, q8_0, q4_k and q6_k, which takes long. What a\n" +
    "run has measured is kept at once, so that an interrupted one goes on where it was. The table holds for this CPU,\n" +
    "level, number of threads and build of the kernels; it never changes a result. It lies in MLLM_TUNED, else in\n" +
    "tuned.json in the folder of the chat's history; `mllm doctor` shows what is in use. Let nothing else run meanwhile:\n" +
    "what was measured beside other programs does not count and is left for the next time.",
  options: [
    { ...MODEL_OPTION, doc: `${MODEL_OPTION.doc} (default: usual sizes)` },
    { name: "force", doc: "forget what was measured before for this machine" },
    JSON_OPTION,
    ...RUN_OPTIONS,
  ],
  async run({ options, host, program }) {
    const path = options.text("model") === undefined
      ? undefined
      : options.required("model", "Leave it out for usual sizes");
    const run = runOptions(options);
    const report = await (async () => {
      using bar = new ProgressBar(host.stderr, () => host.columns());
      const onProgress = (what: string, done: number, total: number) => bar.update(what, done, total);
      return await program.engine.tune(path, { ...run, force: options.has("force"), onProgress, onTune: onProgress });
    })();
    if (options.has("json")) {
      host.stdout.write(`${JSON.stringify(report)}\n`);
      return;
    }
    const { file, measured, known, disturbed, rows } = report;
    for (const row of rows) host.stdout.write(`${row}\n`);
    const counts =
      `comparisons made: ${measured}, known before: ${known}, choices other than the default: ${rows.length}`;
    host.stdout.write(`${counts}\n`);
    host.stderr.write(`kept in ${file}\n`);
    if (disturbed > 0) {
      host.stderr.write(
        "mllm: the threads did not get their processors: other programs run, or there are fewer. Some comparisons " +
          "are left for the next `mllm tune`, on an idle machine or with a smaller --threads\n",
      );
    }
  },
};
