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
   * The tables; none where there is no file, or no folder that it could be in. Throws `invalid_file`, `unsupported`
   * (another format) or `io` for a file that is there and can't be used.
   */
  read(): TunedTable[] {
    const bytes = this.#size();
    if (bytes === undefined) return [];
    if (bytes > FILE_BYTES_MAX) {
      throw new MllmError("invalid_file", "it is larger than a table gets", { file: this.path });
    }
    let text: string;
    try {
      text = Deno.readTextFileSync(this.path);
    } catch (error) {
      throw this.#failure("can't be read", error);
    }
    return readTables(text, this.path);
  }

  /** Puts the tables into the file, whole or not at all. Throws `io`. */
  write(tables: readonly TunedTable[]): void {
    this.#place(writeTables(tables), (temporary) => Deno.renameSync(temporary, this.path));
  }

  /** Throws `io` where no table could be written: better before minutes of measuring than after. */
  checkWritable(): void {
    this.#place("", (temporary) => Deno.removeSync(temporary));
  }

  /** Undefined where the system shows no file: below /proc, or in a folder of another user, there is none of ours. */
  #size(): number | undefined {
    try {
      return Deno.statSync(this.path).size;
    } catch {
      return undefined;
    }
  }

  /** Writes a new file beside the table's, and hands it over. */
  #place(text: string, use: (temporary: string) => void): void {
    const temporary = `${this.path}.${crypto.randomUUID()}`;
    try {
      const folder = this.path.replace(/[\\/]?[^\\/]*$/, "");
      if (folder !== "") Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
      Deno.writeTextFileSync(temporary, text, { mode: 0o600 });
      use(temporary);
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
    return new MllmError("io", `the file ${what}: ${systemReason(cause)}`, {
      file: this.path,
      next: "MLLM_TUNED names another file",
      cause,
    });
  }
}
