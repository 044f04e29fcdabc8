/** Markdown tables that are aligned in a terminal too, as llama-bench prints them. */

/** A column; a cell wider than `width` makes its row longer. */
export interface Column {
  name: string;
  width: number;
  /** Numbers stand on the right. */
  right?: boolean;
}

const pad = (text: string, { width, right }: Column): string => right ? text.padStart(width) : text.padEnd(width);

const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

/** The names and the rule below them. */
export function tableHead(columns: readonly Column[]): string {
  const rules = columns.map(({ width, right }) => right ? `${"-".repeat(width - 1)}:` : "-".repeat(width));
  return `${line(columns.map((column) => pad(column.name, column)))}\n${line(rules)}`;
}

/** One row; cells in the order of the columns. */
export function tableRow(columns: readonly Column[], cells: readonly string[]): string {
  return line(columns.map((column, i) => pad(cells[i], column)));
}

/** A whole table, its columns as wide as their widest cell. */
export function markdownTable(
  columns: readonly { name: string; right?: boolean }[],
  rows: readonly (readonly string[])[],
): string {
  const wide = columns.map((column, i) => ({
    ...column,
    width: Math.max(3, column.name.length, ...rows.map((cells) => cells[i].length)),
  }));
  return [tableHead(wide), ...rows.map((cells) => tableRow(wide, cells))].join("\n");
}
