/**
 * Which nodes touch which buffers.
 * @module
 */
import type { Graph, GraphBuffer } from "./graph.ts";

/** Indices of the nodes that read and write a buffer, ascending. */
export interface Usage {
  readonly reads: number[];
  readonly writes: number[];
}

/** First and last node that touches a buffer. */
export function lifetimeOf({ reads, writes }: Usage): { first: number; last: number } {
  const last = (list: number[]) => list.length === 0 ? -1 : list[list.length - 1];
  const first = (list: number[]) => list.length === 0 ? Infinity : list[0];
  return { first: Math.min(first(reads), first(writes)), last: Math.max(last(reads), last(writes)) };
}

/** The usage of every buffer of a graph. */
export function usageOf(graph: Graph): Map<GraphBuffer, Usage> {
  const usage = new Map<GraphBuffer, Usage>();
  const of = (buffer: GraphBuffer): Usage => {
    let entry = usage.get(buffer);
    if (entry === undefined) usage.set(buffer, entry = { reads: [], writes: [] });
    return entry;
  };
  graph.nodes.forEach((node, index) => {
    for (const view of node.inputs) {
      if (view?.storage.kind === "graph" && of(view.storage).reads.at(-1) !== index) of(view.storage).reads.push(index);
    }
    for (const view of node.outputs) {
      if (view.storage.kind === "graph" && of(view.storage).writes.at(-1) !== index) {
        of(view.storage).writes.push(index);
      }
    }
  });
  return usage;
}
