/** Dim and bold text, where wanted. */

/** Text styles; each returns its text unchanged where styling is off. */
export interface Style {
  dim(text: string): string;
  bold(text: string): string;
}

/** Styles for an output: none unless it is a terminal, and none with NO_COLOR (https://no-color.org) or TERM=dumb. */
export function styleFor(isTerminal: boolean, env: (name: string) => string | undefined): Style {
  const off = !isTerminal || (env("NO_COLOR") ?? "") !== "" || env("TERM") === "dumb";
  const wrap = (code: number, end: number) => (text: string) =>
    off || text === "" ? text : `\x1b[${code}m${text}\x1b[${end}m`;
  return { dim: wrap(2, 22), bold: wrap(1, 22) };
}

/** A reply without the control characters that would drive a terminal; what is no terminal gets it as it is. */
export function printable(text: string, isTerminal: boolean): string {
  // deno-lint-ignore no-control-regex
  return isTerminal ? text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "") : text;
}
