/** Where the tables of `mllm tune` are kept. */
import { MllmError, systemReason } from "@mllm/core";
import { stateFolder } from "../terminal/history.ts";
import { readTables, type TunedTable, writeTables } from "./tuned_table.ts";

/** A file larger than this is not ours. */
const FILE_BYTES_MAX = 16 << 20;

/** The file: `MLLM_TUNED`, else `tuned.json` beside the chat's history; undefined without a home. */
export function tunedPath(env: (name: string) => string | undefined): string | undefined {
  const own = env("MLLM_TUNED");
  if (own) return own;
  const folder = stateFolder(env);
  return folder === undefined ? undefined : `${folder}${folder.includes("\\") ? "\\" : "/"}tuned.json`;
}

/** The file of tuned tables. */
export class TunedStore {
  constructor(readonly path: string) {}

  /**
   * The tables; none where there is no file. Throws `invalid_file`, `unsupported` (another format) or `io` for a file
   * that can't be used.
   */
  read(): TunedTable[] {
    let text: string;
    try {
      if (Deno.statSync(this.path).size > FILE_BYTES_MAX) {
        throw new MllmError("invalid_file", "it is larger than a table gets", { file: this.path });
      }
      text = Deno.readTextFileSync(this.path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      if (error instanceof MllmError) throw error;
      throw this.#failure("can't be read", error);
    }
    return readTables(text, this.path);
  }

  /** Puts the tables into the file, whole or not at all. Throws `io`. */
  write(tables: readonly TunedTable[]): void {
    const temporary = `${this.path}.${crypto.randomUUID()}`;
    try {
      const folder = this.path.replace(/[\\/]?[^\\/]*$/, "");
      if (folder !== "") Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
      Deno.writeTextFileSync(temporary, writeTables(tables), { mode: 0o600 });
      Deno.renameSync(temporary, this.path);
    } catch (error) {
      try {
        Deno.removeSync(temporary);
      } catch {
        // It was not made.
      }
      throw this.#failure("can't be written", error);
    }
  }

  #failure(what: string, cause: unknown): MllmError {
    return new MllmError("io", `the tuned kernels ${what}: ${systemReason(cause)}`, {
      file: this.path,
      next: "MLLM_TUNED names another file",
      cause,
    });
  }
}
