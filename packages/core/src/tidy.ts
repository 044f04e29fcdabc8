/**
 * Scopes that free the tensors made inside them.
 * @module
 */
import { MllmError } from "./errors.ts";
import type { Tensor } from "./tensor.ts";

const scopes: Set<Tensor>[] = [];

/** Enters a new tensor into the innermost scope. */
export function adopt(tensor: Tensor): void {
  if (scopes.length > 0) scopes[scopes.length - 1].add(tensor);
}

/** Takes tensors out of every scope they are in: for caches and memos that outlive a `tidy`. */
export function keep<T extends Tensor>(tensor: T): T {
  for (const scope of scopes) scope.delete(tensor);
  return tensor;
}

/**
 * Runs `fn` and frees every tensor made inside, except those it returns (alone, or in arrays and plain objects), which
 * then belong to the enclosing scope. Frees all of them when `fn` throws. `fn` must not be asynchronous.
 */
export function tidy<T>(fn: () => T): T {
  const scope = new Set<Tensor>();
  scopes.push(scope);
  let kept: Set<Tensor> = new Set();
  try {
    const result = fn();
    if (result instanceof Promise) {
      throw new MllmError("invalid_argument", "tidy: the function must not be asynchronous");
    }
    kept = new Set(tensorsIn(result));
    return result;
  } finally {
    scopes.pop();
    for (const tensor of scope) {
      if (!kept.has(tensor)) tensor.free();
      else adopt(tensor);
    }
  }
}

/** The tensors in a value: itself, or those in arrays and plain objects, at any depth. */
function* tensorsIn(value: unknown): Generator<Tensor> {
  if (typeof value !== "object" || value === null) return;
  if (isTensor(value)) yield value;
  else if (Array.isArray(value)) { for (const item of value) yield* tensorsIn(item); }
  else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) yield* tensorsIn(item);
  }
}

/** Tensors know themselves by their storage; importing the class here would be a cycle at load time. */
function isTensor(value: object): value is Tensor {
  return "storage" in value && "byteOffset" in value && "free" in value;
}
