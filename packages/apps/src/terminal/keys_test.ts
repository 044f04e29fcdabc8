import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { cleanPaste, KeyDecoder, PASTE_LENGTH_MAX, type TerminalInput } from "./keys.ts";

const encoder = new TextEncoder();

function decode(text: string): TerminalInput[] {
  return new KeyDecoder().push(encoder.encode(text));
}

function key(text: string): string {
  const inputs = decode(text);
  assertEquals(inputs.length, 1, JSON.stringify(inputs));
  return inputs[0].type === "key" ? inputs[0].key : inputs[0].type;
}

describe("KeyDecoder", () => {
  it("knows the keys of common terminals", () => {
    const cases: [string, string][] = [
      ["\r", "enter"],
      ["\n", "enter"],
      ["\x1b\r", "newline"],
      ["\x1b[13;2u", "newline"],
      ["\x1b[27;2;13~", "newline"],
      ["\x1b[A", "up"],
      ["\x1bOA", "up"],
      ["\x1b[1;5D", "word-left"],
      ["\x1b[1;3C", "word-right"],
      ["\x1b[1;2D", "left"],
      ["\x1bb", "word-left"],
      ["\x1b[H", "home"],
      ["\x1b[1~", "home"],
      ["\x1bOF", "end"],
      ["\x1b[3~", "delete"],
      ["\x1b[3;5~", "delete-word-right"],
      ["\x1b\x7f", "delete-word-left"],
      ["\x7f", "backspace"],
      ["\x01", "home"],
      ["\x05", "end"],
      ["\x15", "delete-to-start"],
      ["\x0b", "delete-to-end"],
      ["\x17", "delete-word-left"],
      ["\x03", "interrupt"],
      ["\x04", "end-of-input"],
      ["\x1b[99~", "unknown"],
      ["\x1b[I", "unknown"],
      ["\x1b\u{1f600}", "unknown"],
    ];
    for (const [bytes, name] of cases) assertEquals(key(bytes), name, JSON.stringify(bytes));
  });

  it("gives runs of text in one piece, keys between", () => {
    assertEquals(decode("ab\x7fç漢"), [
      { type: "text", text: "ab" },
      { type: "key", key: "backspace" },
      { type: "text", text: "ç漢" },
    ]);
  });

  it("gives the same inputs however the bytes are cut", () => {
    const text = "h\u{1f600}i\x1b[1;5D\x1b[200~one\rtwo\x1b[31m\x1b[20three\x1b[201~!\x1bOH\r";
    const bytes = encoder.encode(text);
    const join = (inputs: TerminalInput[]) => {
      const out: string[] = [];
      for (const input of inputs) {
        if (input.type === "text" && out.at(-1)?.startsWith("text:")) out[out.length - 1] += input.text;
        else out.push(input.type === "key" ? input.key : `${input.type}:${input.text}`);
      }
      return out;
    };
    const whole = join(new KeyDecoder().push(bytes));
    assertEquals(whole, [
      "text:h\u{1f600}i",
      "word-left",
      "paste:one\ntwo[31m[20three",
      "text:!",
      "home",
      "enter",
    ]);
    for (let cut = 1; cut < bytes.length; cut++) {
      const decoder = new KeyDecoder();
      assertEquals(join([...decoder.push(bytes.slice(0, cut)), ...decoder.push(bytes.slice(cut))]), whole, `at ${cut}`);
    }
    const decoder = new KeyDecoder();
    assertEquals(join([...bytes].flatMap((byte) => decoder.push(Uint8Array.of(byte)))), whole);
  });

  it("an Escape alone waits, then is Escape", () => {
    const decoder = new KeyDecoder();
    assertEquals(decoder.push(encoder.encode("\x1b")), []);
    assertEquals(decoder.isWaiting, true);
    assertEquals(decoder.flush(), [{ type: "key", key: "escape" }]);
    assertEquals(decoder.flush(), []);
  });

  it("a sequence without an end does not eat what follows for ever", () => {
    const decoder = new KeyDecoder();
    decoder.push(encoder.encode("\x1b[" + "1".repeat(200)));
    const after = decoder.push(encoder.encode("x\r"));
    assertEquals(after.at(-1), { type: "key", key: "enter" });
  });

  it("a paste of any size is one input, cut at a bound", () => {
    const decoder = new KeyDecoder();
    const inputs = decoder.push(encoder.encode(`\x1b[200~${"word ".repeat(4000)}\x1b[201~`));
    assertEquals(inputs.length, 1);
    assertEquals(inputs[0].type === "paste" && inputs[0].text.length, 20_000);
    const huge = decoder.push(encoder.encode(`\x1b[200~${"x".repeat(PASTE_LENGTH_MAX + 10)}\x1b[201~`));
    assertEquals(huge[0].type === "paste" && huge[0].text.length, PASTE_LENGTH_MAX);
  });
});

describe("cleanPaste", () => {
  it("keeps line ends and tabs, drops what could drive the terminal", () => {
    assertEquals(cleanPaste("a\r\nb\rc\n\td\x1b[2J\x07\x00"), "a\nb\nc\n\td[2J");
  });
});
