import { beforeEach, describe, it } from "@std/testing/bdd";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { TestScreen } from "../../testing/screen.ts";
import { History } from "./history.ts";
import { KeyDecoder } from "./keys.ts";
import { type EditResult, isOpen, LineEditor, withoutFence } from "./line_editor.ts";

describe("LineEditor", () => {
  let screen: TestScreen;
  let history: History;
  let editor: LineEditor;
  let decoder: KeyDecoder;

  const start = (columns: number, rows = 24) => {
    screen = new TestScreen(columns, rows);
    history = new History();
    decoder = new KeyDecoder();
    const face = { write: (t: string) => screen.write(t), columns: () => screen.columns, rows: () => screen.rows };
    editor = new LineEditor(face, { history, complete: (t) => ["/save", "/set"].filter((c) => c.startsWith(t)) });
    editor.begin();
  };
  const type = (text: string): EditResult | undefined => {
    let last: EditResult | undefined;
    for (const input of decoder.push(new TextEncoder().encode(text))) {
      last = editor.handle(input);
      if (last !== undefined) editor.begin();
    }
    return last;
  };
  beforeEach(() => start(20));

  it("shows what is typed and gives it on Enter", () => {
    type("hello");
    assertEquals(screen.text(), ">>> hello");
    assertEquals(screen.column, 9);
    type("\x1b[D\x1b[DXY");
    assertEquals(screen.text(), ">>> helXYlo");
    assertEquals(screen.column, 9);
    assertEquals(type("\r"), { type: "line", text: "helXYlo" });
    assertEquals(screen.text(), ">>> helXYlo\n>>>");
    assertEquals(screen.unknown, []);
  });

  it("wraps at the width, the cursor never rests in the last column", () => {
    type("0123456789abcdef");
    assertEquals(screen.text(), ">>> 0123456789abcdef");
    assertEquals([screen.row, screen.column], [1, 0]);
    type("gh\x01-");
    assertEquals(screen.text(), ">>> -0123456789abcde\nfgh");
    assertEquals([screen.row, screen.column], [0, 5]);
    type("\x05\x15");
    assertEquals(screen.text(), ">>>");
  });

  it("knows that some characters are two columns wide", () => {
    type("漢字漢字漢字漢字漢");
    assertEquals(screen.text(), ">>> 漢字漢字漢字漢字\n漢");
    type("\x7f\x7f");
    assertEquals(screen.text(), ">>> 漢字漢字漢字漢");
    assertEquals(screen.column, 18);
  });

  it("writes several lines by backslash, Alt+Enter and quotes", () => {
    assertEquals(type("one\\\rtwo\x1b\rthree\r"), { type: "line", text: "one\ntwo\nthree" });
    assertStringIncludes(screen.text(), ">>> one\n... two\n... three\n");
    assertEquals(type('"""\rfirst\r\rsecond\r"""\r'), { type: "line", text: "first\n\nsecond" });
    assertEquals(type('"""inline"""\r'), { type: "line", text: "inline" });
  });

  it("up and down move within several lines, then through history with the draft kept", () => {
    type("first\r");
    type("second\r");
    type("dra");
    type("\x1b[A");
    assertStringIncludes(screen.text(), ">>> second");
    type("\x1b[A");
    assertEquals(editor.text, "first");
    type("\x1b[A");
    assertEquals(editor.text, "first");
    type("\x1b[B\x1b[B");
    assertEquals(editor.text, "dra");
    type("\x15one\x1b\rlonger\x1b[A!");
    assertEquals(editor.text, "one!\nlonger");
  });

  it("a short paste is typed in, with its line ends; a long one becomes a label and is sent whole", () => {
    type("\x1b[200~a\rb\x1b[201~");
    assertEquals(editor.text, "a\nb");
    assertEquals(type("\r"), { type: "line", text: "a\nb" });
    start(60);
    const paste = Array.from({ length: 500 }, (_, i) => `line ${i} of what was pasted`).join("\n");
    type(`sum up: \x1b[200~${paste}\x1b[201~ please`);
    assertStringIncludes(screen.text(), ">>> sum up: [pasted: 500 lines,");
    assertEquals(type("\r"), { type: "line", text: `sum up: ${paste} please` });
    type("\x1b[A");
    assertEquals(editor.text, `sum up: ${paste} please`);
    assertStringIncludes(screen.text(), "[pasted: 500 lines,");
  });

  it("a text higher than the window scrolls inside it", () => {
    start(20, 5);
    for (let i = 0; i < 12; i++) type(`row ${i}\x1b\r`);
    type("end");
    assertEquals(screen.lines.length <= 5, true);
    assertStringIncludes(screen.text(), "... row 11\n... end");
    for (let i = 0; i < 12; i++) type("\x1b[A");
    assertStringIncludes(screen.text(), ">>> row 0");
    assertEquals(screen.lines.length <= 5, true);
  });

  it("draws anew when the window changes, without leaving rows behind", () => {
    start(40);
    screen.write("\rearlier\r\n");
    editor.begin();
    type("0123456789 0123456789 0123456789 01");
    screen.columns = 60;
    editor.resize();
    assertEquals(screen.text(), "earlier\n>>> 0123456789 0123456789 0123456789 01");
    // Narrower: the terminal wraps the long row into two, the cursor goes along.
    const [, long] = screen.lines;
    screen.lines = [screen.lines[0], long.slice(0, 30), long.slice(30)];
    screen.row = 2;
    screen.column = 9;
    screen.columns = 30;
    editor.resize();
    assertEquals(screen.text(), "earlier\n>>> 0123456789 0123456789 0123\n456789 01");
    assertEquals([screen.row, screen.column], [2, 9]);
  });

  it("Ctrl+C drops what was typed, then asks to leave; Ctrl+D leaves on an empty line only", () => {
    assertEquals(type("abc\x03"), undefined);
    assertEquals(editor.text, "");
    assertEquals(screen.text(), ">>> abc\n>>>");
    assertEquals(type("\x03"), { type: "interrupt" });
    assertEquals(type("ab\x1b[D\x04"), undefined);
    assertEquals(editor.text, "a");
    assertEquals(type("\x7f\x04"), { type: "end" });
  });

  it("Tab completes, and lists where there is a choice", () => {
    type("/sa\t");
    assertEquals(editor.text, "/save ");
    type("\x15/s\t");
    assertEquals(editor.text, "/s");
    assertStringIncludes(screen.text(), "/save  /set\n>>> /s");
  });

  it("shows control characters harmlessly", () => {
    type("\x1b[200~tab\there\x1b[201~");
    assertEquals(screen.text(), ">>> tab    here");
  });
});

describe("quotes", () => {
  it("open until closed", () => {
    assertEquals(isOpen('"""'), true);
    assertEquals(isOpen('""""""'), false);
    assertEquals(isOpen('"""abc'), true);
    assertEquals(isOpen('say """'), false);
    assertEquals(withoutFence('  """\na\nb\n"""'), "a\nb");
    assertEquals(withoutFence('a """b"""'), 'a """b"""');
  });
});
