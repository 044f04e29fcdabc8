/** The text being edited: what each editing key does to it, without any drawing. */
import { graphemes } from "./width.ts";

/** One unit that the cursor steps over: a character as the user sees it, or a long paste shown as a short label. */
export interface Atom {
  text: string;
  /** Shown instead of the text. */
  label?: string;
}

const WORD = /[\p{L}\p{N}\p{M}_]/u;

function isWord(atom: Atom | undefined): boolean {
  return atom !== undefined && (atom.label !== undefined || WORD.test(atom.text));
}

interface Snapshot {
  atoms: Atom[];
  cursor: number;
}

const UNDO_MAX = 100;

/** A text with a cursor. Positions count atoms. */
export class LineBuffer {
  #atoms: Atom[] = [];
  #cursor = 0;
  #killed: Atom[] = [];
  #undo: Snapshot[] = [];

  get atoms(): readonly Atom[] {
    return this.#atoms;
  }
  get cursor(): number {
    return this.#cursor;
  }
  get text(): string {
    return this.#atoms.map((atom) => atom.text).join("");
  }
  get isEmpty(): boolean {
    return this.#atoms.length === 0;
  }

  /** Replaces everything; the cursor goes to the end. */
  set(atoms: Atom[]): void {
    this.#remember();
    this.#atoms = atoms;
    this.#cursor = atoms.length;
  }

  /** A fresh start, with nothing to undo. */
  clear(): void {
    this.#atoms = [];
    this.#cursor = 0;
    this.#undo = [];
  }

  insertText(text: string): void {
    this.#remember();
    // What is typed may join with the character before the cursor: an accent, or the next part of an emoji.
    const before = this.#atoms[this.#cursor - 1];
    if (before !== undefined && before.label === undefined) {
      const joined = graphemes(before.text + text);
      if (joined[0] !== before.text) {
        this.#splice(this.#cursor - 1, 1, joined.map((part) => ({ text: part })));
        return;
      }
    }
    this.#splice(this.#cursor, 0, graphemes(text).map((part) => ({ text: part })));
  }

  /** Inserts one atom, for example a labelled paste. */
  insertAtom(atom: Atom): void {
    this.#remember();
    this.#splice(this.#cursor, 0, [atom]);
  }

  left(): void {
    this.#cursor = Math.max(0, this.#cursor - 1);
  }
  right(): void {
    this.#cursor = Math.min(this.#atoms.length, this.#cursor + 1);
  }
  moveTo(position: number): void {
    this.#cursor = Math.max(0, Math.min(this.#atoms.length, position));
  }
  wordLeft(): void {
    this.#cursor = this.#wordStart();
  }
  wordRight(): void {
    this.#cursor = this.#wordEnd();
  }
  /** To the beginning of the line that the cursor is on. */
  home(): void {
    this.#cursor = this.#lineStart();
  }
  /** To the end of that line. */
  end(): void {
    this.#cursor = this.#lineEnd();
  }

  backspace(): void {
    if (this.#cursor > 0) this.#remove(this.#cursor - 1, this.#cursor);
  }
  delete(): void {
    if (this.#cursor < this.#atoms.length) this.#remove(this.#cursor, this.#cursor + 1);
  }
  deleteWordLeft(): void {
    this.#kill(this.#wordStart(), this.#cursor);
  }
  deleteWordRight(): void {
    this.#kill(this.#cursor, this.#wordEnd());
  }
  deleteToStart(): void {
    this.#kill(this.#lineStart(), this.#cursor);
  }
  deleteToEnd(): void {
    const end = this.#lineEnd();
    // On an empty rest of line the line end itself goes, as in every readline.
    this.#kill(this.#cursor, end === this.#cursor ? Math.min(end + 1, this.#atoms.length) : end);
  }
  /** Puts back what was last deleted by word or line. */
  yank(): void {
    if (this.#killed.length === 0) return;
    this.#remember();
    this.#splice(this.#cursor, 0, this.#killed);
  }
  /** Swaps the characters around the cursor. */
  transpose(): void {
    const at = Math.min(this.#cursor, this.#atoms.length - 1);
    if (at < 1) return;
    this.#remember();
    [this.#atoms[at - 1], this.#atoms[at]] = [this.#atoms[at], this.#atoms[at - 1]];
    this.#cursor = at + 1;
  }
  undo(): void {
    const last = this.#undo.pop();
    if (last === undefined) return;
    this.#atoms = last.atoms;
    this.#cursor = last.cursor;
  }

  #remember(): void {
    this.#undo.push({ atoms: this.#atoms.slice(), cursor: this.#cursor });
    if (this.#undo.length > UNDO_MAX) this.#undo.shift();
  }
  #splice(at: number, remove: number, atoms: Atom[]): void {
    this.#atoms = [...this.#atoms.slice(0, at), ...atoms, ...this.#atoms.slice(at + remove)];
    this.#cursor = at + atoms.length;
  }
  #remove(from: number, to: number): void {
    this.#remember();
    this.#splice(from, to - from, []);
  }
  #kill(from: number, to: number): void {
    if (from === to) return;
    this.#killed = this.#atoms.slice(from, to);
    this.#remove(from, to);
  }
  #wordStart(): number {
    let at = this.#cursor;
    while (at > 0 && !isWord(this.#atoms[at - 1])) at--;
    while (at > 0 && isWord(this.#atoms[at - 1])) at--;
    return at;
  }
  #wordEnd(): number {
    let at = this.#cursor;
    while (at < this.#atoms.length && !isWord(this.#atoms[at])) at++;
    while (at < this.#atoms.length && isWord(this.#atoms[at])) at++;
    return at;
  }
  #lineStart(): number {
    let at = this.#cursor;
    while (at > 0 && this.#atoms[at - 1].text !== "\n") at--;
    return at;
  }
  #lineEnd(): number {
    let at = this.#cursor;
    while (at < this.#atoms.length && this.#atoms[at].text !== "\n") at++;
    return at;
  }
}
