import { MllmError, quoted } from "@mllm/core";
import { preTokenizerPatterns } from "./pre_tokenizers.ts";

/** What to do about an expression that can't run here. */
export const useGguf = "Use a GGUF file of the model, which names its pre-tokenizer instead";

/** Ways to match a branch before its first unbounded repetition. */
const waysMax = 4096;
const depthMax = 16;
const lengthMax = 16_384;

/** What a piece of an expression may do: how many ways it has to match, whether always, and whether any length. */
interface Piece {
  ways: number;
  /** Matches the empty text where it matches nothing else. */
  nullable: boolean;
  /** Takes any number of characters. */
  unbounded: boolean;
}

const white = ["\\s+(?!\\S)", "\\s*[\\r\\n]+", "\\s*[\\r\\n]", "\\s+$"];
/** Branches of real tokenizers that have to give characters back, but only over one run of them. */
const knownBranches = new Set([...white, ...preTokenizerPatterns().flatMap((pattern) => branchesOf(pattern))]);

/**
 * Refuses a regular expression from a file that JavaScript's engine might run for ever on: it backtracks. Accepted are
 * branches (what `|` separates) of the known pre-tokenizers, and such as never have to go back over a long text: behind
 * their first `*`, `+` or `{n,}`, which is on a single character or class, everything may be empty; before it there are
 * at most 4,096 ways to match. These take time linear in the text.
 *
 * @throws MllmError `unsupported` for other expressions, `invalid_file` for one that is broken
 */
export function checkPattern(pattern: string): void {
  try {
    if (pattern.length > lengthMax) refuse(`it has more than ${lengthMax} characters`);
    alternatives(pattern, 0);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    throw new MllmError(error.code, `tokenizer: the expression ${quoted(pattern)} ${error.message}`, {
      next: error.code === "invalid_file"
        ? "Compare the file with the published one; if they are equal, use a GGUF file of the model"
        : useGguf,
    });
  }
}

class Refusal extends Error {
  constructor(readonly code: "unsupported" | "invalid_file", message: string) {
    super(message);
  }
}

function refuse(what: string): never {
  throw new Refusal("unsupported", `is not supported: ${what}`);
}

/** Where the escape, class, group or single character at `from` ends. */
function endOfAtom(pattern: string, from: number): number {
  if (pattern[from] === "\\") {
    return from + /^\\(?:[pP]\{[^}]*\}|x\{[^}]*\}|u\{[^}]*\}|.|$)/su.exec(pattern.slice(from))![0].length;
  }
  if (pattern[from] === "[") {
    let at = from + (pattern[from + 1] === "^" ? 2 : 1);
    if (pattern[at] === "]") refuse("an empty class");
    for (; at < pattern.length; at++) {
      if (pattern[at] === "\\") at++;
      else if (pattern[at] === "[") refuse("a class in a class");
      else if (pattern[at] === "]") return at + 1;
    }
  } else if (pattern[from] === "(") {
    let open = 0;
    for (let at = from; at < pattern.length;) {
      const inside = pattern[at] !== "(" && pattern[at] !== ")";
      if (pattern[at] === "(") open++;
      if (pattern[at] === ")") open--;
      at = inside ? endOfAtom(pattern, at) : at + 1;
      if (open === 0) return at;
    }
  } else return from + String.fromCodePoint(pattern.codePointAt(from)!).length;
  throw new Refusal("invalid_file", "is broken");
}

/** The parts between the `|` that are in no group. */
function branchesOf(pattern: string): string[] {
  const branches: string[] = [];
  let start = 0;
  for (let at = 0; at < pattern.length; at = endOfAtom(pattern, at)) {
    if (pattern[at] !== "|") continue;
    branches.push(pattern.slice(start, at));
    start = at + 1;
  }
  return [...branches, pattern.slice(start)];
}

function alternatives(pattern: string, depth: number): Piece {
  if (depth > depthMax) refuse("too many groups in groups");
  const sum: Piece = { ways: 0, nullable: false, unbounded: false };
  for (const branch of branchesOf(pattern)) {
    const piece = knownBranches.has(branch) ? { ways: 1, nullable: false, unbounded: true } : sequence(branch, depth);
    sum.ways += piece.ways;
    sum.nullable ||= piece.nullable;
    sum.unbounded ||= piece.unbounded;
  }
  if (sum.ways > waysMax) refuse("there are too many ways to match it");
  return sum;
}

function sequence(branch: string, depth: number): Piece {
  const whole: Piece = { ways: 1, nullable: true, unbounded: false };
  for (let at = 0; at < branch.length;) {
    const end = endOfAtom(branch, at);
    const atom = branch.slice(at, end);
    const quantifier = /^(?:[*+?]|\{\d*,?\d*\})[?+]?/.exec(branch.slice(end))?.[0] ?? "";
    const piece = repeated(single(atom, depth), quantifier, atom.startsWith("("));
    if (whole.unbounded && !piece.nullable) refuse("it may have to go back over all it took");
    whole.ways *= piece.ways;
    whole.nullable &&= piece.nullable;
    whole.unbounded ||= piece.unbounded;
    if (whole.ways > waysMax) refuse("there are too many ways to match it");
    at = end + quantifier.length;
  }
  return whole;
}

function single(atom: string, depth: number): Piece {
  if (/^\\[1-9kg]/.test(atom)) refuse("a reference back");
  if (/^[*+?)]/.test(atom)) throw new Refusal("invalid_file", "is broken");
  if (!atom.startsWith("(")) return { ways: 1, nullable: false, unbounded: false };
  const opening = /^\((?:\?(?::|i:|=|!|<=|<!))?/.exec(atom)![0];
  const inner = atom.slice(opening.length, -1);
  if (inner.startsWith("?")) refuse("a group of an unknown kind");
  const piece = alternatives(inner, depth + 1);
  if (!/[=!]$/.test(opening)) return piece;
  if (piece.unbounded) refuse("it looks ahead or back over any length");
  return { ...piece, nullable: false };
}

function repeated(piece: Piece, quantifier: string, group: boolean): Piece {
  if (quantifier === "") return piece;
  if (/.[?+]$/.test(quantifier)) refuse("a lazy or possessive repetition");
  if (quantifier === "?") return { ...piece, ways: piece.ways + 1, nullable: true };
  if (group) refuse("a group is repeated");
  if (quantifier === "*") return { ways: 1, nullable: true, unbounded: true };
  if (quantifier === "+") return { ways: 1, nullable: false, unbounded: true };
  const [, min, comma, max] = /^\{(\d*)(,?)(\d*)\}/.exec(quantifier)!;
  const least = Number(min);
  if (comma !== "" && max === "") return { ways: Math.max(1, least), nullable: least === 0, unbounded: true };
  return { ways: Math.max(1, least, Number(max)), nullable: least === 0, unbounded: false };
}
