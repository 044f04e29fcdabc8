import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import { Random } from "./random.ts";
import { StopMatcher } from "./stop_matcher.ts";

function run(stops: string[], pieces: string[]): { text: string; stopped: boolean } {
  const matcher = new StopMatcher(stops);
  let text = "";
  for (const piece of pieces) {
    const result = matcher.push(piece);
    text += result.text;
    if (result.stopped) return { text, stopped: true };
  }
  const end = matcher.flush();
  return { text: text + end.text, stopped: end.stopped };
}

describe("StopMatcher", () => {
  it("passes everything on without stop strings", () => {
    assertEquals(run([], ["a", "", "b"]), { text: "ab", stopped: false });
  });
  it("holds back what may become one", () => {
    const matcher = new StopMatcher(["</s>", "\n\n"]);
    assertEquals(matcher.push("a<"), { text: "a", stopped: false });
    assertEquals(matcher.push("/"), { text: "", stopped: false });
    assertEquals(matcher.push("b\n"), { text: "</b", stopped: false });
    assertEquals(matcher.push("\nc"), { text: "", stopped: true });
    assertEquals(matcher.push("more"), { text: "", stopped: true });
    assertEquals(matcher.flush(), { text: "", stopped: true });
  });
  it("waits for an earlier one", () => {
    assertEquals(run(["abcd", "c"], ["xabc", "d"]), { text: "x", stopped: true });
    assertEquals(run(["abcd", "c"], ["xabc", "e"]), { text: "xab", stopped: true });
    assertEquals(run(["abcd", "c"], ["xabc"]), { text: "xab", stopped: true });
    assertEquals(run(["abcd", "c"], ["xab"]), { text: "xab", stopped: false });
  });
  it("gives the text before the first match, however it is cut", () => {
    const random = new Random(3);
    const letters = (n: number) => Array.from({ length: n }, () => "ab"[random.bits() & 1]).join("");
    for (let round = 0; round < 3000; round++) {
      const stops = Array.from({ length: 1 + random.bits() % 3 }, () => letters(1 + random.bits() % 5));
      const text = letters(random.bits() % 20);
      const first = Math.min(...stops.map((stop) => text.indexOf(stop)).map((at) => at < 0 ? text.length : at));
      const pieces: string[] = [];
      for (let at = 0; at < text.length;) {
        const n = random.bits() % 4;
        pieces.push(text.slice(at, at + n));
        at += n;
      }
      assertEquals(run(stops, pieces), { text: text.slice(0, first), stopped: first < text.length });
    }
  });
  it("refuses empty and huge ones", () => {
    assertThrows(() => new StopMatcher([""]), MllmError, "stop string");
    assertThrows(() => new StopMatcher(["a".repeat(5000)]), MllmError, "stop string");
    assertThrows(() => new StopMatcher(new Array(2000).fill("a")), MllmError, "too many");
  });
  it("is quick with long stop strings", () => {
    const start = performance.now();
    run(["a".repeat(4000) + "b"], new Array(5000).fill("aaa"));
    assert(performance.now() - start < 10_000);
  });
});
