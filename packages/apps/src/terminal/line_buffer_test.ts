import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { LineBuffer } from "./line_buffer.ts";

function buffer(text: string): LineBuffer {
  const made = new LineBuffer();
  made.insertText(text);
  return made;
}

describe("LineBuffer", () => {
  it("inserts, moves and deletes by characters as the user sees them", () => {
    const b = buffer("a👩‍👩‍👧é");
    assertEquals(b.atoms.length, 3);
    b.left();
    b.backspace();
    assertEquals(b.text, "aé");
    b.insertText("漢");
    assertEquals(b.text, "a漢é");
    b.delete();
    assertEquals(b.text, "a漢");
    b.delete();
    assertEquals(b.text, "a漢");
  });

  it("joins an accent that is typed after its letter", () => {
    const b = buffer("e");
    b.insertText("\u0301");
    assertEquals(b.atoms.length, 1);
    assertEquals(b.cursor, 1);
  });

  it("moves and deletes by words", () => {
    const b = buffer("say hello, big world");
    b.wordLeft();
    b.wordLeft();
    b.wordLeft();
    assertEquals(b.cursor, 4);
    b.wordRight();
    assertEquals(b.cursor, 9);
    b.deleteWordLeft();
    assertEquals(b.text, "say , big world");
    b.deleteWordRight();
    assertEquals(b.text, "say  world");
    b.yank();
    assertEquals(b.text, "say , big world");
  });

  it("home, end and kill work on the line of the cursor", () => {
    const b = buffer("one\ntwo words\nthree");
    b.moveTo(8);
    b.home();
    assertEquals(b.cursor, 4);
    b.end();
    assertEquals(b.cursor, 13);
    b.moveTo(8);
    b.deleteToEnd();
    assertEquals(b.text, "one\ntwo \nthree");
    b.deleteToEnd();
    assertEquals(b.text, "one\ntwo three");
    b.deleteToStart();
    assertEquals(b.text, "one\nthree");
  });

  it("transposes and undoes", () => {
    const b = buffer("ab");
    b.transpose();
    assertEquals(b.text, "ba");
    b.undo();
    assertEquals(b.text, "ab");
    b.undo();
    assertEquals(b.text, "");
    b.undo();
    assertEquals(b.text, "");
  });

  it("holds a labelled paste as one unit", () => {
    const b = buffer("x ");
    b.insertAtom({ text: "many\nlines", label: "[pasted]" });
    b.insertText("y");
    assertEquals(b.text, "x many\nlinesy");
    b.left();
    b.backspace();
    assertEquals(b.text, "x y");
  });
});
