import { MllmError } from "@mllm/core";

const stopsMax = 1024;
const stopLengthMax = 4096;

/**
 * Watches a stream of text for stop strings. Text that may be the start of one is held back until that is decided; the
 * match that begins first wins, the longest of those that begin together, whatever the pieces were.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  /** Text that is not given out yet: it starts with what may become a stop string. */
  #held = "";
  #stopped = false;

  /**
   * Starts at the beginning of a text; one matcher serves one text.
   *
   * @param stops stop strings; none is fine, an empty one is not
   * @throws MllmError `invalid_argument` for more than 1,024 strings, or one that has not 1 to 4,096 characters
   */
  constructor(stops: readonly string[]) {
    if (stops.length > stopsMax) throw new MllmError("invalid_argument", `${stops.length} stop strings are too many`);
    for (const stop of stops) {
      if (typeof stop !== "string" || stop === "" || stop.length > stopLengthMax) {
        throw new MllmError("invalid_argument", `a stop string must have 1 to ${stopLengthMax} characters`);
      }
    }
    this.#stops = [...new Set(stops)];
  }

  /**
   * Takes more text; returns what is certain now, and whether a stop string was met (its text and all after it are
   * dropped).
   */
  push(text: string): { text: string; stopped: boolean } {
    if (this.#stopped) return { text: "", stopped: true };
    if (this.#stops.length === 0) return { text, stopped: false };
    const all = this.#held + text;
    const first = this.#firstMatch(all);
    const pending = this.#pendingFrom(all);
    if (first <= pending && first < all.length) {
      this.#stopped = true;
      this.#held = "";
      return { text: all.slice(0, first), stopped: true };
    }
    this.#held = all.slice(pending);
    return { text: all.slice(0, pending), stopped: false };
  }

  /**
   * Ends the stream: returns the text that was held back in vain, up to a stop string that waited for an earlier one,
   * and whether there was one, now or before.
   */
  flush(): { text: string; stopped: boolean } {
    const text = this.#held.slice(0, this.#firstMatch(this.#held));
    if (text.length < this.#held.length) this.#stopped = true;
    this.#held = "";
    return { text, stopped: this.#stopped };
  }

  /** Where the first stop string of `text` begins; its length where there is none. */
  #firstMatch(text: string): number {
    let first = text.length;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at >= 0 && at < first) first = at;
    }
    return first;
  }

  /** Where the earliest unfinished stop string of `text` begins; its length where there is none. */
  #pendingFrom(text: string): number {
    let from = text.length;
    for (const stop of this.#stops) {
      for (let at = Math.max(0, text.length - stop.length + 1); at < from; at++) {
        if (stop.startsWith(text.slice(at))) from = at;
      }
    }
    return from;
  }
}
