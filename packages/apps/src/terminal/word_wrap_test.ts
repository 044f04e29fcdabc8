import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { TestScreen } from "../../testing/screen.ts";
import { columnsOf } from "./width.ts";
import { WordWrapper } from "./word_wrap.ts";

function wrap(text: string, columns: number, cut: number): string {
  const screen = new TestScreen(columns, 1000);
  const wrapper = new WordWrapper(() => columns);
  const characters = [...text];
  for (let i = 0; i < characters.length; i += cut) screen.write(wrapper.push(characters.slice(i, i + cut).join("")));
  assertEquals(screen.unknown, []);
  return screen.text();
}

describe("WordWrapper", () => {
  it("wraps at words, whatever the pieces", () => {
    const text = "The quick brown fox jumps over the lazy dog and extraordinarily-long-words-go-here too.";
    const expected = "The quick brown fox\njumps over the lazy\ndog and\nextraordinarily-lon\ng-words-go-here\ntoo.";
    for (const cut of [1, 2, 3, 7, 100]) assertEquals(wrap(text, 20, cut), expected, `pieces of ${cut}`);
  });

  it("keeps line ends, lists and blank lines", () => {
    assertEquals(wrap("a\n\n- b c\n  d\r\ne", 20, 1), "a\n\n- b c\n  d\ne");
  });

  it("parts wide characters anywhere and never exceeds the width", () => {
    const text = "漢字かな交じり文の長い返事です。mixed with words and 漢字 again";
    for (const columns of [11, 16, 21, 40]) {
      for (const line of wrap(text, columns, 1).split("\n")) assertEquals(columnsOf(line) < columns, true, line);
    }
    assertEquals(wrap(text, 40, 1).replaceAll("\n", "").replaceAll(" ", ""), text.replaceAll(" ", ""));
  });

  it("counts an accent that comes in a piece of its own", () => {
    assertEquals(
      wrap("e\u0301e\u0301e\u0301e\u0301e\u0301 e\u0301e\u0301e\u0301e\u0301", 11, 1),
      "ééééé éééé".normalize("NFD"),
    );
    assertEquals(wrap("aaaa 👩‍👩‍👧 c", 11, 100), "aaaa 👩‍👩‍👧 c");
  });

  it("leaves code between fences alone", () => {
    const code = "```\nconst long = 'this line is longer than the window is wide';\n```\nafter the code it wraps again";
    const out = new WordWrapper(() => 20).push(code);
    assertEquals(out.includes("'this line is longer than the window is wide';"), true);
    assertEquals(wrap(code, 20, 3).endsWith("after the code it\nwraps again"), true);
  });

  it("drops control characters", () => {
    assertEquals(new WordWrapper(() => 80).push("a\x1b[2Jb\x07\x9bc"), "a[2Jbc");
  });
});
