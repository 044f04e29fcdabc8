/** `mllm tune`: measures which kernels are fastest here, and keeps the result. */
import { MllmError } from "@mllm/core";
import { errorLine } from "../errors.ts";
import { MODEL_OPTION, RUN_OPTIONS, runOptions } from "../run_options.ts";
import { ProgressBar } from "../terminal/progress.ts";
import type { Engine, RunOptions, TuneReport } from "../engine.ts";
import { UsageError } from "../options.ts";
import { type Host, SIGNAL_EXIT } from "../host.ts";
import { type Command, JSON_OPTION } from "./command.ts";

export const tuneCommand: Command = {
  name: "tune",
  usage: "[-m MODEL] [--force]",
  doc: "measure which kernels are fastest on this machine, for all later runs",
  details:
    "Tries candidates for each shape of the model in turns: GEMV or GEMM, tile sizes, thread numbers. Without a\n" +
    "model: shapes of usual sizes from 0.5 to 8 billion weights in q4_0, q8_0, q4_k and q6_k, which takes long. Each\n" +
    "stage is kept at once, so that an interrupted run goes on with the next. The table holds for this CPU, level,\n" +
    "number of threads and build of the kernels; it never changes a result. It lies in MLLM_TUNED, else in tuned.json in\n" +
    "the folder of the chat's history; `mllm doctor` shows what is in use. Let nothing else run meanwhile: what was\n" +
    "measured beside other programs does not count and is left for the next time; exit code 1 when that is all.",
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
    if (run.eager) throw new UsageError("tune measures captured programs, not --eager", "Leave --eager out");
    const report = await tune(host, program.engine, path, { ...run, force: options.has("force") });
    if (report === undefined) {
      host.stderr.write("mllm: interrupted before anything was measured\n");
      return SIGNAL_EXIT.SIGINT;
    }
    if (report.interrupted) {
      print(host, report, options.has("json"));
      const next = report.measured + report.known > 0 ? "goes on with the stage that ran" : "begins anew";
      host.stderr.write(`mllm: interrupted: the next \`mllm tune\` ${next}\n`);
      return SIGNAL_EXIT.SIGINT;
    }
    const { measured, disturbed } = report;
    const left = disturbed === 0 ? undefined : new MllmError(
      "io",
      "the threads did not get their processors: other programs run, or there are fewer",
      {
        next:
          `${measured > 0 ? "Some" : "All"} comparisons are left for the next \`mllm tune\`, on an idle machine or ` +
          "with a smaller --threads",
      },
    );
    print(host, report, options.has("json"));
    if (left !== undefined && measured === 0) throw left;
    if (left !== undefined && !options.has("json")) host.stderr.write(`${errorLine(left)}\n`);
  },
};

/** Tunes with a bar on stderr, where that is a terminal. After Ctrl+C a report of what was done, undefined if nothing. */
async function tune(
  host: Host,
  engine: Engine,
  path: string | undefined,
  run: RunOptions & { force: boolean },
): Promise<TuneReport | undefined> {
  using bar = new ProgressBar(host.stderr, () => host.columns());
  const onProgress = (what: string, done: number, total: number) => bar.update(what, done, total);
  const stop = new AbortController();
  const stopListening = host.onSignal("SIGINT", () => stop.abort());
  try {
    return await engine.tune(path, { ...run, onProgress, onTune: onProgress, signal: stop.signal });
  } catch (error) {
    if (error !== stop.signal.reason) throw error;
  } finally {
    stopListening();
  }
}

function print(host: Host, report: TuneReport, isJson: boolean): void {
  if (isJson) {
    host.stdout.write(`${JSON.stringify(report)}\n`);
    return;
  }
  const { file, measured, known, rows } = report;
  for (const row of rows) host.stdout.write(`${row}\n`);
  host.stdout.write(
    `comparisons made: ${measured}, known before: ${known}, choices other than the default: ${rows.length}\n`,
  );
  host.stderr.write(measured + known > 0 ? `kept in ${file}\n` : "nothing was kept\n");
}
