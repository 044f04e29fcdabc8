import { Environment } from "@huggingface/jinja";

/**
 * A value inside of the template engine. The package does not export these classes, so they are fetched from an
 * Environment.
 */
export interface RuntimeValue {
  type: string;
  // deno-lint-ignore no-explicit-any
  value: any;
}

type Make = new (value?: unknown) => RuntimeValue;
const make = (value: unknown) => new Environment().set("x", value).constructor as unknown as Make;

/** Constructors of the engine's values. */
export const StringValue = make("");
export const IntegerValue = make(1);
export const FloatValue = make(0.5);
export const BooleanValue = make(true);
export const ArrayValue = make([]);
export const UndefinedValue = make(undefined);

/** Marks arrays that are tuples in Python (the pairs of `dict.items()`); the engine has no such thing for them. */
const tuples = new WeakSet<RuntimeValue>();

/** Marks each array in `list` as a tuple. */
export function markPairs(list: RuntimeValue): RuntimeValue {
  if (list.type === "ArrayValue") { for (const pair of list.value) tuples.add(pair); }
  return list;
}

/** What Python's `str()` gives, and so what `{{ value }}` prints. */
export function pythonString(value: RuntimeValue): string {
  if (value.type === "StringValue") return value.value;
  if (value.type === "UndefinedValue") return "";
  return pythonRepr(value);
}

/** What Python's `repr()` gives. */
export function pythonRepr(value: RuntimeValue): string {
  switch (value.type) {
    case "StringValue":
      return quote(value.value);
    case "BooleanValue":
      return value.value ? "True" : "False";
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "Undefined";
    case "FloatValue":
      return pythonFloat(value.value);
    case "ArrayValue":
    case "TupleValue": {
      const items = (value.value as RuntimeValue[]).map(pythonRepr);
      if (value.type === "ArrayValue" && !tuples.has(value)) return `[${items.join(", ")}]`;
      return items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;
    }
    case "ObjectValue": {
      const entries = [...value.value as Map<string, RuntimeValue>];
      return `{${entries.map(([key, item]) => `${quote(key)}: ${pythonRepr(item)}`).join(", ")}}`;
    }
    default:
      return String(value.value);
  }
}

/** Python's `==`: no conversions, but numbers and booleans compare by value; lists and dicts by their contents. */
export function pythonEquals(a: RuntimeValue, b: RuntimeValue): boolean {
  const numeric = /^(Integer|Float|Boolean)Value$/;
  if (numeric.test(a.type) && numeric.test(b.type)) return Number(a.value) === Number(b.value);
  if (a.type === "ArrayValue" && b.type === "ArrayValue") {
    return a.value.length === b.value.length &&
      a.value.every((item: RuntimeValue, i: number) => pythonEquals(item, b.value[i]));
  }
  if (a.type === "ObjectValue" && b.type === "ObjectValue") {
    return a.value.size === b.value.size &&
      [...a.value].every(([key, item]) => b.value.has(key) && pythonEquals(item, b.value.get(key)));
  }
  return a.type === b.type && a.value === b.value;
}

/** `repr(float)`: the shortest digits, with an exponent from 1e16 up and below 1e-4. */
function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e16 || size < 1e-4)) {
    return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  }
  const text = value.toString();
  return text.includes(".") ? text : `${text}.0`;
}

/** `repr(str)`: single quotes unless only these occur inside, escapes for what doesn't print. */
function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\n\r\t]|\p{Cc}/gu, (c) => {
    const known: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };
    return known[c] ?? `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
  return mark + (mark === "'" ? escaped.replaceAll("'", "\\'") : escaped) + mark;
}

const months = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/** Python's `strftime` in the C locale, local time; unknown directives stay as they are. */
export function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const directives: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    e: () => String(date.getDate()).padStart(2),
    B: () => months[date.getMonth()],
    b: () => months[date.getMonth()].slice(0, 3),
    A: () => days[date.getDay()],
    a: () => days[date.getDay()].slice(0, 3),
    H: () => two(date.getHours()),
    I: () => two(date.getHours() % 12 || 12),
    p: () => date.getHours() < 12 ? "AM" : "PM",
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    F: () => strftime(date, "%Y-%m-%d"),
    T: () => strftime(date, "%H:%M:%S"),
    "%": () => "%",
  };
  return format.replace(/%([A-Za-z%])/g, (all, letter: string) => directives[letter]?.() ?? all);
}
