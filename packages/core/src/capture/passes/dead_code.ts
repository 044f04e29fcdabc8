/**
 * Removes ops whose results nothing uses.
 * @module
 */
import type { Graph, GraphBuffer } from "../graph.ts";

/**
 * Keeps nodes that write memory outside the graph or a buffer that an output or a kept node needs; returns how many
 * were removed. A buffer written twice keeps all its writers.
 */
export function removeDeadCode(graph: Graph): number {
  const live = new Set<GraphBuffer>();
  for (const view of graph.outputs.values()) if (view.storage.kind === "graph") live.add(view.storage);
  const keep = graph.nodes.map(() => false);
  for (let changed = true; changed;) {
    changed = false;
    for (let i = graph.nodes.length - 1; i >= 0; i--) {
      if (keep[i]) continue;
      const node = graph.nodes[i];
      if (!node.outputs.some(({ storage }) => storage.kind === "memory" || live.has(storage))) continue;
      keep[i] = changed = true;
      for (const view of [...node.inputs, ...node.outputs]) if (view?.storage.kind === "graph") live.add(view.storage);
    }
  }
  const before = graph.nodes.length;
  graph.nodes = graph.nodes.filter((_, i) => keep[i]);
  return before - graph.nodes.length;
}
