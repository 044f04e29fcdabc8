/**
 * Brings the `linear` ops of one input together (q, k and v; gate and up): few rows through several of them are one job of
 * the backend's threads, which then wait for each other once.
 * @module
 */
import { identical } from "../../ops/call.ts";
import { canPass, type Graph, type GraphNode } from "../graph.ts";

/** Moves each `linear` up behind the first ones of its input, if nothing between hinders; returns how many moved. */
export function gatherLinears(graph: Graph): number {
  const { nodes } = graph;
  let moved = 0;
  for (let at = 1; at < nodes.length; at++) {
    const first = nodes.findIndex((node, i) => i < at && areSiblings(node, nodes[at]));
    if (first < 0) continue;
    let to = first + 1;
    while (to < at && areSiblings(nodes[to], nodes[at])) to++;
    if (to === at || !canPass(nodes[at], nodes.slice(to, at))) continue;
    nodes.splice(to, 0, ...nodes.splice(at, 1));
    moved++;
  }
  return moved;
}

function areSiblings(a: GraphNode, b: GraphNode): boolean {
  return a.op === "linear" && b.op === "linear" && identical(a.inputs[0]!, b.inputs[0]!);
}
