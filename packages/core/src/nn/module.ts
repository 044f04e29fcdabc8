/**
 * The base of blocks with weights.
 * @module
 */
import { Tensor } from "../tensor.ts";

/**
 * A block with tensors and other blocks in its fields. Disposing it frees them all, also those that it shares with another
 * block (a tied table): so either the outermost block is disposed, or whoever made the tensors frees them and no block is.
 */
export abstract class Module implements Disposable {
  /** Every tensor of this block and of the blocks in its fields, each once, with the path of fields to it. */
  parameters(): Map<string, Tensor> {
    const found = new Map<string, Tensor>();
    collect(this, "", found, new Set());
    return found;
  }

  /** Bytes of the memory behind all parameters; shared memory counts once. */
  get parameterBytes(): number {
    const storages = new Set([...this.parameters().values()].map((tensor) => tensor.storage));
    return [...storages].reduce((sum, storage) => sum + storage.bytes, 0);
  }

  /** Frees all parameters; their blocks can't be used after it. */
  [Symbol.dispose](): void {
    for (const tensor of this.parameters().values()) tensor.free();
  }
}

function collect(value: unknown, path: string, found: Map<string, Tensor>, seen: Set<unknown>): void {
  if (typeof value !== "object" || value === null || seen.has(value)) return;
  if (value instanceof Tensor) {
    seen.add(value);
    found.set(path, value);
  } else if (Array.isArray(value) || value instanceof Module) {
    seen.add(value);
    for (const [key, item] of Object.entries(value)) collect(item, path === "" ? key : `${path}.${key}`, found, seen);
  }
}
