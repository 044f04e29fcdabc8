import { type Job, type Report, runRange } from "./cases.ts";

/** The worker that cases run in, so that a hang can be ended. */
const scope = self as unknown as { onmessage: (event: MessageEvent<Job>) => void; postMessage(report: Report): void };

scope.onmessage = async ({ data }) => {
  for (const range of data.ranges) await runRange(data, range, (report) => scope.postMessage(report));
  scope.postMessage({ kind: "end" });
};
