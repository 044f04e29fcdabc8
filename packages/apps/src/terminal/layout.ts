/** Where each part of the edited text stands on the screen. */
import type { Atom } from "./line_buffer.ts";
import { columnsOf } from "./width.ts";

/** One row on the screen. */
export interface Row {
  text: string;
  /** Columns taken, escape sequences not counted. */
  width: number;
}

export interface Layout {
  rows: Row[];
  cursorRow: number;
  cursorColumn: number;
  /** Screen place of every cursor position: atoms.length + 1 entries. */
  places: { row: number; column: number }[];
}

/** What is shown for an atom; control characters can't reach the terminal. */
export function shown(atom: Atom): string {
  if (atom.label !== undefined) return atom.label;
  if (atom.text === "\t") return "    ";
  // deno-lint-ignore no-control-regex
  return atom.text.replace(/[\x00-\x1f\x7f]/g, (c) => `^${String.fromCharCode(c.charCodeAt(0) ^ 64)}`);
}

/**
 * Lays atoms out in rows of `columns`. The first row begins with `prompt`, rows after a line end with `continuation`;
 * rows that are only wrapped begin at column 0. A cursor after a full row stands on a row of its own, so that it never
 * rests in the terminal's last column.
 */
export function layout(
  atoms: readonly Atom[],
  cursor: number,
  prompt: string,
  continuation: string,
  columns: number,
): Layout {
  const rows: Row[] = [{ text: prompt, width: columnsOf(prompt) }];
  const places: Layout["places"] = [];
  const here = () => ({ row: rows.length - 1, column: rows[rows.length - 1].width });
  const put = (text: string, width: number) => {
    if (rows[rows.length - 1].width + width > columns && width <= columns) rows.push({ text: "", width: 0 });
    const row = rows[rows.length - 1];
    row.text += text;
    row.width += width;
    if (row.width >= columns) rows.push({ text: "", width: 0 });
  };
  for (const atom of atoms) {
    places.push(here());
    if (atom.text === "\n") {
      rows.push({ text: continuation, width: columnsOf(continuation) });
      continue;
    }
    const text = shown(atom);
    if (atom.label === undefined && text.length <= 4) put(text, columnsOf(text));
    else for (const part of text) put(part, columnsOf(part));
  }
  places.push(here());
  const place = places[cursor];
  return { rows, cursorRow: place.row, cursorColumn: place.column, places };
}

/** The cursor position on screen row `row` that is nearest to `column`. */
export function positionAt(laid: Layout, row: number, column: number): number {
  let best = 0;
  let distance = Infinity;
  for (let i = 0; i < laid.places.length; i++) {
    const place = laid.places[i];
    if (place.row !== row) continue;
    const d = Math.abs(place.column - column);
    if (d < distance) [best, distance] = [i, d];
  }
  return best;
}
