/**
 * The recorded form of a model: op records over buffers that have no address yet.
 * @module
 */
import type { Backend } from "../backend.ts";
import type { OpName } from "../native/abi.ts";
import type { Scalar, TokenDim } from "../scalar.ts";
import type { MemoryStorage, Storage } from "../storage.ts";
import type { View } from "../view.ts";

/**
 * Where a buffer of a graph will live: written by the caller before a run, read by the caller after it, or inside the
 * arena only.
 */
export type BufferRole = "input" | "output" | "temporary";

/** A buffer that a graph reads or writes; its place is decided when the program is made. */
export class GraphBuffer {
  readonly kind = "graph";
  version = 0;
  readonly isFreed = false;
  role: BufferRole = "temporary";

  constructor(readonly graph: Graph, readonly id: number, readonly bytes: number) {}

  /** Nothing to count: the memory plan decides lifetimes. */
  retain(): void {}
  release(): void {}
}

/** One recorded op. Passes replace nodes and views; they never change them. */
export interface GraphNode {
  readonly op: OpName;
  readonly inputs: readonly (View | undefined)[];
  readonly outputs: readonly View[];
  readonly ints: readonly Scalar[];
  readonly floats: readonly number[];
}

/** A program while it is being recorded and improved. */
export class Graph {
  nodes: GraphNode[] = [];
  readonly inputs: Map<string, View> = new Map<string, View>();
  readonly outputs: Map<string, View> = new Map<string, View>();
  /** Set when recording is over: ops on its tensors fail from then on. */
  sealed = false;
  #buffers = 0;
  readonly #held = new Set<MemoryStorage>();

  constructor(readonly backend: Backend, readonly tokens: TokenDim) {}

  /** A new buffer; `bytes` is its size at the largest token count. */
  buffer(bytes: number): GraphBuffer {
    return new GraphBuffer(this, this.#buffers++, bytes);
  }

  /** Appends a node in program order. Memory from outside is held: a constant may be freed before the program is made. */
  push(node: GraphNode): void {
    this.nodes.push(node);
    for (const view of node.outputs) view.storage.version++;
    for (const view of [...node.inputs, ...node.outputs]) {
      if (view?.storage.kind !== "memory" || this.#held.has(view.storage)) continue;
      view.storage.retain();
      this.#held.add(view.storage);
    }
  }

  /** Lets go of the memory from outside. */
  release(): void {
    for (const storage of this.#held) storage.release();
    this.#held.clear();
  }
}

/** Whether a node reads `storage`. */
export function reads(node: GraphNode, storage: Storage): boolean {
  return node.inputs.some((view) => view?.storage === storage);
}

/** Whether a node writes `storage`. */
export function writes(node: GraphNode, storage: Storage): boolean {
  return node.outputs.some((view) => view.storage === storage);
}

/** Whether a node may run before or after all of `others`: none reads or writes its results, or writes its operands. */
export function canPass(node: GraphNode, others: readonly GraphNode[]): boolean {
  return others.every((other) =>
    !node.outputs.some(({ storage }) => reads(other, storage) || writes(other, storage)) &&
    !node.inputs.some((view) => view !== undefined && writes(other, view.storage))
  );
}

/** A node with every view of one storage moved to another. */
export function moveStorage(node: GraphNode, from: Storage, to: Storage): GraphNode {
  const move = <T extends View | undefined>(view: T): T =>
    view?.storage === from ? { ...view, storage: to } as T : view;
  return { ...node, inputs: node.inputs.map(move), outputs: node.outputs.map(move) };
}
