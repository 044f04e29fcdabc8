import { type Environment, Interpreter } from "@huggingface/jinja";
import { MllmError } from "@mllm/core";
import {
  ArrayValue,
  BooleanValue,
  FloatValue,
  IntegerValue,
  markPairs,
  pythonEquals,
  pythonRepr,
  pythonString,
  type RuntimeValue,
  StringValue,
  UndefinedValue,
} from "./python.ts";

/** A node of the template's syntax tree, as far as it is looked at here. */
// deno-lint-ignore no-explicit-any
export type Node = any;

/** The methods of the engine that are overridden; most are private in its types, so the exact version is pinned. */
type Engine = new (environment: Environment) => {
  evaluate(node: Node, environment: Environment): RuntimeValue;
  evaluateBlock(nodes: Node[], environment: Environment): RuntimeValue;
  evaluateBinaryExpression(node: Node, environment: Environment): RuntimeValue;
  evaluateCallExpression(node: Node, environment: Environment): RuntimeValue;
  evaluateFor(node: Node, environment: Environment): RuntimeValue;
  evaluateArguments(nodes: Node[], environment: Environment): [RuntimeValue[], Map<string, RuntimeValue>];
  applyFilter(operand: RuntimeValue, filter: Node, environment: Environment): RuntimeValue;
};

/** Evaluated nodes and a sixteenth of the characters and items they yield: some seconds at most. */
const workMax = 5_000_000;
/** Work of one round of a loop beyond its body. */
const roundWork = 8;
/** Longest text or list that may come up, in characters or items. */
const lengthMax = 4 * 1024 * 1024;
const indentMax = 64;
/** Deepest nesting of lists and mappings that are compared or printed. */
const depthMax = 256;

/** Statements that print nothing although the engine gives them a value. */
const silent = new Set(["Set", "Macro", "Comment", "Break", "Continue"]);
/** Filters that take an undefined value for an empty text, or for an empty list, as Jinja does. */
const textFilters = new Set(["trim", "upper", "lower", "title", "capitalize", "replace", "string", "indent"]);
const listFilters = new Set([
  ..."list join length count sort reverse unique map select reject selectattr rejectattr first last sum".split(" "),
]);

/** A value that stands where a node is expected, so that no node is evaluated twice. */
const evaluated = (value: RuntimeValue): Node => ({ type: "Evaluated", value });

/**
 * The engine of `@huggingface/jinja` with what separates it from Python's Jinja in chat templates: values print as in
 * Python (`True`, `None`, `['a']`), undefined ones pass through filters and loops, `%` follows the divisor's sign, `==`
 * does not convert, and the filters `sum`, `format` and `count` exist. It also counts work, so that no template runs
 * for ever.
 */
export class ChatInterpreter extends (Interpreter as unknown as Engine) {
  #work = 0;

  override evaluate(node: Node, environment: Environment): RuntimeValue {
    if (node?.type === "Evaluated") return node.value;
    const value = super.evaluate(node, environment) ?? new UndefinedValue();
    const content = value.value;
    const length = typeof content === "string" || Array.isArray(content) ? content.length : 0;
    if (length > lengthMax) throw tooMuch("makes a text or list of more than 4 Mi items");
    this.#charge(1 + (length >> 4));
    return value;
  }

  #charge(work: number): void {
    this.#work += work;
    if (this.#work > workMax) throw tooMuch("does too much work");
  }

  /**
   * Charges for all that a list or mapping holds before something walks it: parts that it holds several times count, and
   * are visited, each time.
   */
  #chargeAll({ value }: RuntimeValue, depth = 0): void {
    if (!Array.isArray(value) && !(value instanceof Map)) {
      return this.#charge(typeof value === "string" ? 1 + (value.length >> 4) : 1);
    }
    if (depth === depthMax) throw tooMuch(`nests lists more than ${depthMax} deep`);
    this.#charge(1);
    if (value instanceof Map) { for (const key of value.keys()) this.#charge(String(key).length >> 4); }
    for (const item of value.values()) this.#chargeAll(item, depth + 1);
  }

  /** As `pythonString`, for its work. */
  #print(value: RuntimeValue): string {
    if (value.type !== "StringValue") this.#chargeAll(value);
    return pythonString(value);
  }

  override evaluateBlock(nodes: Node[], environment: Environment): RuntimeValue {
    let text = "";
    for (const node of nodes) {
      const value = this.evaluate(node, environment);
      if (!silent.has(node.type)) text += this.#print(value);
      if (text.length > lengthMax) throw tooMuch("makes a text of more than 4 Mi characters");
    }
    return new StringValue(text);
  }

  override evaluateBinaryExpression(node: Node, environment: Environment): RuntimeValue {
    const operator: string = node.operator.value;
    if (operator === "and" || operator === "or") return super.evaluateBinaryExpression(node, environment);
    const left = this.evaluate(node.left, environment);
    const right = this.evaluate(node.right, environment);
    if (operator === "~") return new StringValue(this.#print(left) + this.#print(right));
    const joins = operator === "+" && (left.type === "StringValue" || right.type === "StringValue");
    if (joins || operator === "==" || operator === "!=") {
      this.#chargeAll(left);
      this.#chargeAll(right);
    }
    if (operator === "==") return new BooleanValue(pythonEquals(left, right));
    if (operator === "!=") return new BooleanValue(!pythonEquals(left, right));
    const result = super.evaluateBinaryExpression(
      { ...node, left: evaluated(left), right: evaluated(right) },
      environment,
    );
    if (operator === "%" && result.value !== 0 && result.value < 0 !== right.value < 0) result.value += right.value;
    return result;
  }

  override evaluateCallExpression(node: Node, environment: Environment): RuntimeValue {
    const result = super.evaluateCallExpression(node, environment);
    return node.callee?.type === "MemberExpression" && node.callee.property?.value === "items"
      ? markPairs(result)
      : result;
  }

  override evaluateFor(node: Node, environment: Environment): RuntimeValue {
    const select = node.iterable.type === "SelectExpression" ? node.iterable : undefined;
    const value = this.evaluate(select ? select.lhs : node.iterable, environment);
    const items = this.#iterable(value);
    this.#charge(roundWork * (items.type === "ArrayValue" ? items.value.length : items.value.size));
    const iterable = evaluated(items);
    return super.evaluateFor({ ...node, iterable: select ? { ...select, lhs: iterable } : iterable }, environment);
  }

  #iterable(value: RuntimeValue): RuntimeValue {
    if (value.type === "UndefinedValue") return new ArrayValue([]);
    if (value.type === "StringValue") {
      return new ArrayValue(Array.from(value.value as string, (c) => new StringValue(c)));
    }
    if (value.type === "TupleValue") return new ArrayValue(value.value);
    if (value.type === "ArrayValue" || value.type === "ObjectValue") return value;
    throw new Error(`'${value.type.replace("Value", "").replace("Null", "None")}Type' object is not iterable`);
  }

  override applyFilter(operand: RuntimeValue, filter: Node, environment: Environment): RuntimeValue {
    const call = filter.type === "CallExpression";
    const name: string = call ? filter.callee.value : filter.value;
    let input = operand;
    if (operand.type === "UndefinedValue" && textFilters.has(name)) input = new StringValue("");
    if (operand.type === "UndefinedValue" && listFilters.has(name)) input = new ArrayValue([]);
    if (input.type !== "StringValue" && (name === "trim" || name === "string")) {
      input = new StringValue(this.#print(input));
    }
    if (name === "tojson") this.#chargeAll(input);
    if (name === "indent" || name === "tojson") filter = this.#boundIndent(filter, call, environment);
    if (input.type === "ArrayValue" && name === "join") {
      input = new ArrayValue(input.value.map((item: RuntimeValue) => new StringValue(this.#print(item))));
    }
    const values = call ? () => this.evaluateArguments(filter.args, environment)[0] : () => [];
    if (name === "sum" && input.type === "ArrayValue") return sum(input.value);
    if (name === "format" && input.type === "StringValue") {
      const given = values();
      for (const value of given) this.#chargeAll(value);
      return new StringValue(format(input.value, given));
    }
    if (name === "count") return super.applyFilter(input, { ...filter, value: "length" }, environment);
    const result = super.applyFilter(input, filter, environment) ?? new UndefinedValue();
    return name === "items" || name === "dictsort" ? markPairs(result) : result;
  }

  /** Checks the numbers among a filter's arguments: an indent of a million columns is no layout but an attack. */
  #boundIndent(filter: Node, call: boolean, environment: Environment): Node {
    if (!call) return filter;
    const args = filter.args.map((node: Node) => {
      const keyword = node.type === "KeywordArgumentExpression";
      const value = keyword || node.type !== "SpreadExpression" && node.type !== "KeywordSpreadExpression"
        ? this.evaluate(keyword ? node.value : node, environment)
        : undefined;
      if (value === undefined) throw tooMuch("spreads arguments over a filter");
      if (value.type === "IntegerValue" && value.value > indentMax) throw tooMuch(`indents by ${value.value} columns`);
      return keyword ? { ...node, value: evaluated(value) } : evaluated(value);
    });
    return { ...filter, args };
  }
}

function tooMuch(what: string): MllmError {
  return new MllmError("invalid_file", `the chat template ${what}`, { next: "Use another template." });
}

function sum(items: RuntimeValue[]): RuntimeValue {
  let total = 0;
  for (const item of items) {
    if (typeof item.value !== "number") throw new Error(`unsupported operand for sum: ${item.type}`);
    total += item.value;
  }
  return items.some((item) => item.type === "FloatValue") ? new FloatValue(total) : new IntegerValue(total);
}

/** printf-style formatting with %s, %r, %d and %%. */
function format(text: string, values: RuntimeValue[]): string {
  let next = 0;
  const out = text.replace(/%(.)/gs, (_, kind: string) => {
    if (kind === "%") return "%";
    const value = values[next++];
    if (value === undefined) throw new Error("not enough arguments for format string");
    if (kind === "s") return pythonString(value);
    if (kind === "r") return pythonRepr(value);
    if (kind === "d" && typeof value.value === "number") return String(Math.trunc(value.value));
    throw new Error(`format does not know %${kind} of ${value.type}`);
  });
  if (next < values.length) throw new Error("not all arguments converted during string formatting");
  return out;
}
