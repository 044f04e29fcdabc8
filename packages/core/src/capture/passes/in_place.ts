/**
 * Lets an op write its result over an operand that nobody needs afterwards.
 * @module
 */
import { opTable } from "../../native/abi.ts";
import { sameShape } from "../../scalar.ts";
import { isContiguous, type View } from "../../view.ts";
import { type Graph, GraphBuffer, type GraphNode, moveStorage } from "../graph.ts";
import { lifetimeOf, type Usage, usageOf } from "../usage.ts";

/** Merges buffers where the op table allows in-place; returns how many buffers went away. */
export function useInPlace(graph: Graph): number {
  let merged = 0;
  const usage = usageOf(graph);
  for (let at = 0; at < graph.nodes.length; at++) {
    const pair = findPair(graph.nodes[at], at, usage);
    if (pair === undefined) continue;
    merge(graph, usage, pair.drop, pair.keep);
    merged++;
  }
  return merged;
}

function findPair(
  node: GraphNode,
  at: number,
  usage: Map<GraphBuffer, Usage>,
): { drop: GraphBuffer; keep: GraphBuffer } | undefined {
  const out = node.outputs[0];
  if (!(out.storage instanceof GraphBuffer) || !wholeBuffer(out)) return undefined;
  if (lifetimeOf(usage.get(out.storage)!).first !== at) return undefined;
  for (const index of opTable[node.op].inPlace as readonly number[]) {
    const view = node.inputs[index];
    if (view === undefined || !(view.storage instanceof GraphBuffer) || view.storage.role !== "temporary") continue;
    const fits = wholeBuffer(view) && view.dtype === out.dtype && sameShape(view.shape, out.shape);
    if (!fits || view.storage.bytes !== out.storage.bytes) continue;
    if (lifetimeOf(usage.get(view.storage)!).last !== at || usedTwice(node, view)) continue;
    return { drop: view.storage, keep: out.storage };
  }
  return undefined;
}

function wholeBuffer(view: View): boolean {
  return view.byteOffset === 0 && isContiguous(view.shape, view.strides);
}

/** Whether other operands of the node lie in the buffer too (then overwriting it might change what they read). */
function usedTwice(node: GraphNode, view: View): boolean {
  return [...node.inputs, ...node.outputs].filter((other) => other?.storage === view.storage).length > 1;
}

/** Every view of `drop` becomes one of `keep` (which is the output when one of them is). */
function merge(graph: Graph, usage: Map<GraphBuffer, Usage>, drop: GraphBuffer, keep: GraphBuffer): void {
  const of = (buffer: GraphBuffer) => usage.get(buffer)!;
  const nodes = new Set([...of(drop).reads, ...of(drop).writes]);
  for (const index of nodes) graph.nodes[index] = moveStorage(graph.nodes[index], drop, keep);
  const joined = (a: number[], b: number[]) => [...new Set([...a, ...b])].sort((x, y) => x - y);
  usage.set(keep, { reads: joined(of(drop).reads, of(keep).reads), writes: joined(of(drop).writes, of(keep).writes) });
  usage.delete(drop);
}
