/** The little of a terminal that tests need: cursor moves, erasing, wrapping, wide characters. */
import { columnsOf, graphemes } from "../src/terminal/width.ts";

export class TestScreen {
  columns: number;
  rows: number;
  /** Rows from the beginning of time; a cell is a grapheme, "" behind a wide one. */
  lines: string[][] = [[]];
  row = 0;
  column = 0;
  /** Set when something was received that is not understood. */
  unknown: string[] = [];

  constructor(columns: number, rows: number) {
    this.columns = columns;
    this.rows = rows;
  }

  /** Everything, also what has scrolled away. */
  text(): string {
    return this.lines.map((line) => line.map((cell) => cell ?? " ").join("").trimEnd()).join("\n").trimEnd();
  }

  write(text: string): void {
    // deno-lint-ignore no-control-regex
    for (const part of text.match(/\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f]|[^\x00-\x1f]+/g) ?? []) {
      if (part.startsWith("\x1b[")) this.#sequence(part.slice(2, -1), part.at(-1)!);
      else if (part === "\r") this.column = 0;
      else if (part === "\n") this.#down();
      else if (part < " ") this.unknown.push(part);
      else for (const grapheme of graphemes(part)) this.#put(grapheme);
    }
  }

  #down(): void {
    this.row++;
    if (this.row === this.lines.length) this.lines.push([]);
  }

  #put(grapheme: string): void {
    const width = columnsOf(grapheme);
    if (this.column + width > this.columns) {
      this.column = 0;
      this.#down();
    }
    const line = this.lines[this.row];
    if (width === 0 && this.column > 0) {
      line[this.column - (line[this.column - 1] === "" ? 2 : 1)] += grapheme;
      return;
    }
    while (line.length < this.column) line.push(" ");
    line[this.column] = grapheme;
    if (width === 2) line[this.column + 1] = "";
    this.column += width;
  }

  #sequence(parameters: string, final: string): void {
    const n = Math.max(1, Number.parseInt(parameters, 10) || 1);
    // The first row of the window: nothing above it can be reached.
    const top = Math.max(0, this.lines.length - this.rows);
    if (final === "A") this.row = Math.max(top, this.row - n);
    else if (final === "C") this.column = Math.min(this.columns - 1, this.column + n);
    else if (final === "D") this.column = Math.max(0, Math.min(this.column, this.columns) - n);
    else if (final === "K") this.lines[this.row].length = Math.min(this.lines[this.row].length, this.column);
    else if (final === "J" && parameters === "") {
      this.lines[this.row].length = Math.min(this.lines[this.row].length, this.column);
      this.lines.length = this.row + 1;
    } else if (final === "J" || final === "H") {
      this.lines = [[]];
      this.row = this.column = 0;
    } else if (final !== "m" && final !== "h" && final !== "l") this.unknown.push(parameters + final);
  }
}
