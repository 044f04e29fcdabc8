import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { contextFull } from "./stats_line.ts";

describe("contextFull", () => {
  it("says what makes the context larger, where something does", () => {
    const larger = "the context of 1 token is full; --context N makes it larger, up to 2";
    assertEquals(contextFull({ context: 1, contextLimit: 2 }), larger);
    assertEquals(contextFull({ context: 2, contextLimit: 2 }), "the context of 2 tokens is full");
  });
});
