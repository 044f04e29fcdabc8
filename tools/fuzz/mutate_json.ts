import type { Json } from "@mllm/core";
import type { Random } from "../random_model/random.ts";

/** Text that takes the place of a value when the tree is written. */
class Raw {
  constructor(readonly text: string) {}
}
type Node = Json | Raw | Node[] | { [key: string]: Node };

interface Place {
  holder: Node[] | { [key: string]: Node };
  key: string | number;
}

function collect(node: Node, places: Place[], limit: number): void {
  if (node === null || typeof node !== "object" || node instanceof Raw || places.length >= limit) return;
  const holder = node as Node[] | { [key: string]: Node };
  const keys = Array.isArray(holder) ? holder.keys() : Object.keys(holder);
  for (const key of keys) {
    if (places.length >= limit) return;
    places.push({ holder, key });
    collect((holder as Record<string | number, Node>)[key], places, limit);
  }
}

const numbers = [
  "-1",
  "0",
  "-0",
  "1",
  "0.5",
  "1e308",
  "1e400",
  "-1e400",
  "2147483648",
  "4294967296",
  "9007199254740993",
];
const more = ["18446744073709551616", "1e-400", "3.0", "NaN", "Infinity", "01", "+1", "1e", ".5", "0x10", "1E+2"];
const words = ["null", "true", "false", '""', "[]", "{}", '"\\ud800"', '"\\u0000"', '"__proto__"', '"\ufffd"', '"a b"'];

function bomb(random: Random): string {
  const n = [10, 65, 300, 20_000][random.below(4)];
  switch (random.below(5)) {
    case 0:
      return "[".repeat(n) + "]".repeat(n);
    case 1:
      return '{"a":'.repeat(n) + "1" + "}".repeat(n);
    case 2:
      return `[${Array(n).fill("0").join(",")}]`;
    case 3:
      return JSON.stringify("x".repeat(n * 5));
    default:
      return `{${Array.from({ length: n }, (_, i) => `"k${i}":${i}`).join(",")}}`;
  }
}

function replacement(random: Random, places: Place[]): Node {
  const pick = (list: readonly string[]) => new Raw(list[random.below(list.length)]);
  switch (random.below(12)) {
    case 0:
    case 1:
    case 2:
      return pick(numbers);
    case 3:
    case 4:
      return pick(more);
    case 5:
    case 6:
      return pick(words);
    case 7:
      return new Raw(bomb(random));
    case 8:
      return Array.from({ length: random.below(6) }, () => pick(numbers));
    case 9:
      return new Raw(JSON.stringify(String.fromCharCode(...Array.from({ length: 5 }, () => random.below(0x3000)))));
    default: {
      // Another part of the same document: types that are right elsewhere.
      const { holder, key } = places[random.below(places.length)];
      return new Raw(write((holder as Record<string | number, Node>)[key]));
    }
  }
}

function write(node: Node): string {
  if (node instanceof Raw) return node.text;
  if (Array.isArray(node)) return `[${node.map(write).join(",")}]`;
  if (node !== null && typeof node === "object") {
    const entries = Object.entries(node as { [key: string]: Node });
    return `{${entries.map(([key, value]) => `${JSON.stringify(key)}:${write(value)}`).join(",")}}`;
  }
  return JSON.stringify(node);
}

/** A JSON text with one to three of its values, keys or members changed. */
export function mutateJson(random: Random, text: string): string {
  const root = { root: JSON.parse(text) as Node };
  for (let i = random.below(3); i >= 0; i--) {
    const places: Place[] = [];
    collect(root, places, 20_000);
    if (places.length === 0) break;
    // Half of the time near the top, where the structure is.
    const count = random.below(2) === 0 ? Math.min(places.length, 40) : places.length;
    const { holder, key } = places[random.below(count)];
    const target = holder as Record<string | number, Node>;
    const action = random.below(8);
    if (action === 0 && !Array.isArray(holder)) delete target[key];
    else if (action === 1 && !Array.isArray(holder)) {
      const names = ["__proto__", "constructor", "toString", "", "length", `${key}2`, "\ud800"];
      Object.defineProperty(target, names[random.below(names.length)], {
        value: target[key],
        enumerable: true,
        configurable: true,
        writable: true,
      });
    } else if (action === 2 && !Array.isArray(holder)) {
      // A key twice: a member whose text holds two.
      target[key] = new Raw(`${write(target[key])},${JSON.stringify(key)}:${write(replacement(random, places))}`);
    } else if (action === 3 && Array.isArray(holder)) holder.splice(Number(key), 1 + random.below(3));
    else if (action === 4 && Array.isArray(holder)) holder.push(...holder.slice(0, 50));
    else target[key] = replacement(random, places);
  }
  return write(root.root ?? null);
}
