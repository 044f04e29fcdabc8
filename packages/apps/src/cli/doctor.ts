/** `mllm doctor`: what this machine has, which kernels run on it, and why. */
import type { BackendReport } from "../engine.ts";
import { RUN_OPTIONS, runOptions } from "../run_options.ts";
import { type Command, JSON_OPTION } from "./command.ts";

function reportText(report: BackendReport): string {
  const cpu = `${report.cpu ?? "unknown"}${
    report.microarchitecture === undefined ? "" : ` (${report.microarchitecture})`
  }`;
  const head = `${report.name}: ${report.description}`;
  if (!report.available) return `${head}\n  not available: ${report.reason ?? "no reason given"}`;
  return [
    head,
    `  cpu       ${cpu}, ${report.cores} cores, ${(report.memoryBytes / 2 ** 30).toFixed(1)} GiB`,
    `  features  ${report.features.join(" ") || "none"}`,
    `  levels    ${
      report.levels.map((level) => level === report.level ? `[${level}]` : level).join(" ") || report.level
    }`,
    ...Object.entries(report.missing).map(([level, reason]) => `    not ${level}: ${reason}`),
    ...(report.tuned === undefined ? [] : [`  tuned     ${report.tuned}`]),
    ...(report.choices.length > 0 ? ["  kernels", ...report.choices.map((choice) => `    ${choice}`)] : []),
  ].join("\n");
}

export const doctorCommand: Command = {
  name: "doctor",
  usage: "",
  doc: "show backends, ISA levels, chosen kernels and why",
  details:
    "The run options choose what is explained: the kernels of a level, say. Before each choice stands where it comes from:\n" +
    "[tuned] by `mllm tune` on this machine, for [CPUs by name], or for [any CPU].",
  options: [JSON_OPTION, ...RUN_OPTIONS],
  async run({ options, host, program }) {
    const reports = await program.engine.backends(runOptions(options));
    const { v8, deno } = Deno.version;
    if (options.has("json")) {
      const system = { os: Deno.build.os, arch: Deno.build.arch, deno };
      const backends = reports.map(({ memoryBytes, ...rest }) => ({ ...rest, memory_bytes: memoryBytes }));
      const json = { system, default_backend: program.engine.defaultBackend, backends };
      host.stdout.write(`${JSON.stringify(json)}\n`);
      return;
    }
    host.stdout.write(`Deno ${deno} (V8 ${v8}) on ${Deno.build.os} ${Deno.build.arch}\n`);
    for (const report of reports) host.stdout.write(`${reportText(report)}\n`);
  },
};
