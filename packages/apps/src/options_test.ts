import { describe, it } from "@std/testing/bdd";
import { assertEquals, assertThrows } from "@std/assert";
import { helpText, type OptionSpec, parseOptions, UsageError } from "./options.ts";
import { editDistance, nearest } from "./suggest.ts";

const SPECS: OptionSpec[] = [
  { name: "prompt", short: "p", value: "TEXT", doc: "a text" },
  { name: "threads", short: "t", aliases: ["n-threads"], value: "N", doc: "a number" },
  { name: "eager", doc: "a switch" },
];

describe("parseOptions", () => {
  it("takes every usual form", () => {
    for (const args of [["-t", "2"], ["-t2"], ["--threads", "2"], ["--threads=2"], ["--n-threads", "2"]]) {
      assertEquals(parseOptions(args, SPECS).integer("threads", 1), 2, args.join(" "));
    }
    const options = parseOptions(["--eager", "-p", "-dash", "a", "--", "--b"], SPECS, { positionalsMax: 2 });
    assertEquals([options.has("eager"), options.text("prompt"), options.positionals], [true, "-dash", ["a", "--b"]]);
    assertEquals(parseOptions(["-p", "a", "-p", "b"], SPECS).texts("prompt"), ["a", "b"]);
    assertEquals(parseOptions(["--threads", "1, 2,3"], SPECS).integers("threads", 0), [1, 2, 3]);
    assertEquals(parseOptions(["--prompt="], SPECS).text("prompt"), "");
    assertEquals(parseOptions(["-p", "=x", "--prompt==y"], SPECS).texts("prompt"), ["=x", "=y"]);
  });

  it("refuses the rest", () => {
    const wrong: [string[], string][] = [
      [["--thread", "2"], "Did you mean --threads?"],
      [["-T", "2"], "Did you mean -t?"],
      [["--xyzzy"], "--help lists the options"],
      [["-p"], "-p needs a value: -p TEXT"],
      [["-t=1"], '-t takes its value without "=". Write -t 1 or --threads=1'],
      [["a"], 'there is no place for "a"'],
      [["--__proto__"], "there is no option"],
    ];
    for (const [args, text] of wrong) assertThrows(() => parseOptions(args, SPECS), UsageError, text);
    for (const value of ["", "x", "1e3", "0x10", "-1", "1.0", "99999999999999999999"]) {
      assertThrows(() => parseOptions(["-t", value], SPECS).integer("threads", 0), UsageError, "whole number");
    }
  });

  it("lines up its help", () => {
    assertEquals(helpText(SPECS).split("\n"), [
      "  -p, --prompt TEXT  a text",
      "  -t, --threads N    a number",
      "      --eager        a switch",
    ]);
  });
});

describe("nearest", () => {
  it("knows a slip from another word", () => {
    assertEquals(nearest("genrate", ["generate", "info"]), "generate");
    assertEquals(nearest("temp", ["temperature", "top_p"]), "temperature");
    assertEquals(nearest("zzz", ["generate", "info"]), undefined);
    assertEquals(editDistance("ab", "ba"), 1);
    assertEquals(editDistance("", "abc"), 3);
  });
});
