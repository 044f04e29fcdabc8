/**
 * Brings the `linear` ops of one input together (q, k and v; gate and up): few rows through several of them are one job of
 * the backend's threads, which then wait for each other once. Programs of many tokens keep their order, for products of
 * many rows are jobs of their own: what one made is then used while the caches hold it, in an arena that need not hold all
 * of them at once. A short run of such a program does without the common job.
 * @module
 */
import { identical } from "../../ops/call.ts";
import { canPass, type Graph, type GraphNode } from "../graph.ts";

/** Programs that can run more tokens at once stay as they are. Decoding runs 1, prompts as a rule hundreds. */
const tokensMost = 32;

/** Moves each `linear` up behind the one of its input before it, if nothing between hinders; returns how many moved. */
export function gatherLinears(graph: Graph): number {
  if (graph.tokens.max > tokensMost) return 0;
  const { nodes } = graph;
  let moved = 0;
  for (let at = 1; at < nodes.length; at++) {
    const node = nodes[at];
    if (node.op !== "linear") continue;
    let to = at;
    while (to > 0 && !areSiblings(nodes[to - 1], node) && canPass(node, [nodes[to - 1]])) to--;
    if (to === at || to === 0 || !areSiblings(nodes[to - 1], node)) continue;
    nodes.splice(to, 0, ...nodes.splice(at, 1));
    moved++;
  }
  return moved;
}

function areSiblings(a: GraphNode, b: GraphNode): boolean {
  return a.op === "linear" && b.op === "linear" && identical(a.inputs[0]!, b.inputs[0]!);
}
