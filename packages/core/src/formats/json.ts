import { MllmError } from "../errors.ts";
import { readWholeFile } from "./byte_source.ts";

/** A parsed JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Bounds on JSON from outside, for `parseJson`. */
export interface JsonLimits {
  /** Deepest nesting of arrays and objects. Default 64. */
  depthMax?: number;
  /** Most arrays, objects, and separators between values; bounds the memory of the result. Default 20,000,000. */
  valuesMax?: number;
  /** Refuse objects that have a key twice (JSON.parse would keep the last). Default false. */
  uniqueKeys?: boolean;
  /** Byte at which the JSON starts in `file`, added to offsets in messages. Default 0. */
  baseOffset?: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const damaged = "The file is damaged or not JSON: download or write it again";

/**
 * Parses UTF-8 JSON within bounds. JSON.parse does the work; a scan before it enforces the bounds and a strict parser
 * after a failure finds the byte that is wrong.
 *
 * @throws MllmError `invalid_file` with file and byte offset
 */
export function parseJson(bytes: Uint8Array, file: string, limits: JsonLimits = {}): Json {
  const { depthMax = 64, valuesMax = 20_000_000, uniqueKeys = false } = limits;
  let { baseOffset = 0 } = limits;
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) { // a byte-order mark; a second one is no JSON
    bytes = bytes.subarray(3);
    baseOffset += 3;
  }
  scanBounds(bytes, file, depthMax, valuesMax, baseOffset);
  if (uniqueKeys) return new StrictParser(bytes, file, baseOffset).parse();
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    new StrictParser(bytes, file, baseOffset).parse();
    throw new MllmError("invalid_file", `not JSON: ${(error as Error).message}`, { file, next: damaged, cause: error });
  }
}

/**
 * Reads and parses a JSON file whose top level has to be an object.
 *
 * @throws MllmError `not_found`, `io` or `invalid_file`
 */
export function readJsonObject(path: string, bytesMax: number, limits: JsonLimits = {}): { [key: string]: Json } {
  const value = parseJson(readWholeFile(path, bytesMax), path, limits);
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new MllmError("invalid_file", "the top level is not a JSON object", { file: path, offset: 0, next: damaged });
  }
  return value;
}

/** Counts nesting and separators outside of strings. */
function scanBounds(bytes: Uint8Array, file: string, depthMax: number, valuesMax: number, base: number): void {
  let depth = 0;
  let values = 0;
  for (let i = 0; i < bytes.length; i++) {
    const c = bytes[i];
    if (c === QUOTE) {
      for (i++; i < bytes.length && bytes[i] !== QUOTE; i++) if (bytes[i] === BACKSLASH) i++;
    } else if (c === 0x5b || c === 0x7b) {
      values++;
      if (++depth > depthMax) fail(`JSON nested deeper than ${depthMax}`, file, base + i);
    } else if (c === 0x5d || c === 0x7d) depth--;
    else if (c === COMMA) values++;
    if (values > valuesMax) fail(`JSON with more than ${valuesMax} values`, file, base + i);
  }
}

function fail(what: string, file: string, offset: number): never {
  throw new MllmError("invalid_file", what, { file, offset, next: damaged });
}

const escapes: Record<string, string> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** Recursive-descent JSON (RFC 8259) over bytes; depth was bounded by the scan. Duplicate keys are errors. */
class StrictParser {
  #at = 0;
  #text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  constructor(private bytes: Uint8Array, private file: string, private base: number) {}

  parse(): Json {
    const value = this.#value();
    this.#space();
    if (this.#at < this.bytes.length) this.#fail("more text after the end of the JSON value");
    return value;
  }

  #fail(what: string): never {
    fail(what, this.file, this.base + this.#at);
  }

  #space(): void {
    for (;; this.#at++) {
      const c = this.bytes[this.#at];
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
    }
  }

  #value(): Json {
    this.#space();
    switch (this.bytes[this.#at]) {
      case 0x7b:
        return this.#object();
      case 0x5b:
        return this.#array();
      case QUOTE:
        return this.#string();
      case 0x74:
        return this.#word("true", true);
      case 0x66:
        return this.#word("false", false);
      case 0x6e:
        return this.#word("null", null);
      case undefined:
        return this.#fail("JSON ends too early");
      default:
        return this.#number();
    }
  }

  #word<T>(word: string, value: T): T {
    for (let i = 0; i < word.length; i++) {
      if (this.bytes[this.#at + i] !== word.charCodeAt(i)) this.#fail("not a JSON value");
    }
    this.#at += word.length;
    return value;
  }

  #object(): Json {
    // A null prototype keeps "__proto__" an ordinary key.
    const result: { [key: string]: Json } = Object.create(null);
    this.#at++;
    this.#space();
    if (this.bytes[this.#at] === 0x7d) return this.#at++, result;
    for (;;) {
      this.#space();
      if (this.bytes[this.#at] !== QUOTE) this.#fail("expected a quoted key in a JSON object");
      const at = this.#at;
      const key = this.#string();
      if (key in result) fail(`the key ${JSON.stringify(key.slice(0, 100))} appears twice`, this.file, this.base + at);
      this.#space();
      if (this.bytes[this.#at] !== 0x3a) this.#fail("expected ':' in a JSON object");
      this.#at++;
      result[key] = this.#value();
      this.#space();
      const c = this.bytes[this.#at];
      if (c !== COMMA && c !== 0x7d) this.#fail("expected ',' or '}' in a JSON object");
      this.#at++;
      if (c === 0x7d) return result;
    }
  }

  #array(): Json {
    const result: Json[] = [];
    this.#at++;
    this.#space();
    if (this.bytes[this.#at] === 0x5d) return this.#at++, result;
    for (;;) {
      result.push(this.#value());
      this.#space();
      const c = this.bytes[this.#at];
      if (c !== COMMA && c !== 0x5d) this.#fail("expected ',' or ']' in a JSON array");
      this.#at++;
      if (c === 0x5d) return result;
    }
  }

  #string(): string {
    const start = ++this.#at;
    let escaped = false;
    for (;; this.#at++) {
      const c = this.bytes[this.#at];
      if (c === undefined) fail("a JSON string without its closing quote", this.file, this.base + start - 1);
      if (c === QUOTE) break;
      if (c < 0x20) this.#fail("a control character inside a JSON string");
      if (c === BACKSLASH) {
        escaped = true;
        this.#at++;
      }
    }
    let text = "";
    try {
      text = this.#text.decode(this.bytes.subarray(start, this.#at));
    } catch {
      fail("a JSON string that is not UTF-8", this.file, this.base + start);
    }
    this.#at++;
    if (!escaped) return text;
    return text.replace(/\\(u([0-9a-fA-F]{4})|[\s\S]?)/g, (_, tail: string, hex?: string) => {
      if (hex) return String.fromCharCode(parseInt(hex, 16));
      const plain = escapes[tail];
      if (plain === undefined) fail(`unknown escape \\${tail} in a JSON string`, this.file, this.base + start);
      return plain;
    });
  }

  #number(): number {
    const start = this.#at;
    while (this.#at - start < 400 && /[-+0-9.eE]/.test(String.fromCharCode(this.bytes[this.#at] ?? 0))) this.#at++;
    const text = this.#text.decode(this.bytes.subarray(start, this.#at));
    if (!/^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$/.test(text)) {
      this.#at = start;
      this.#fail("not a JSON value");
    }
    return Number(text);
  }
}
