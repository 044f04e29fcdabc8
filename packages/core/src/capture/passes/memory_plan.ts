/**
 * Places the temporaries of a program in one arena.
 *
 * Greedy by size with best fit (Pisarchyk & Lee 2020, "Efficient Memory Management for Deep Neural Net Inference"):
 * buffers are placed in an order, each in the smallest gap among those that live at the same time. Several orders are
 * tried and the smallest arena kept.
 * @module
 */
import type { Graph, GraphBuffer } from "../graph.ts";
import { lifetimeOf, usageOf } from "../usage.ts";

/** A buffer as the planner sees it: live from node `first` to node `last`, both inclusive. */
export interface Lifetime {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/** Offsets in the order of the lifetimes. */
export interface MemoryPlan {
  readonly offsets: readonly number[];
  readonly arenaBytes: number;
  /** The most bytes that live at one time: no plan can be smaller. */
  readonly lowerBoundBytes: number;
}

/** Alignment of every buffer: a cache line, and the widest vector. */
const arenaAlignment = 64;

const align = (bytes: number): number => Math.ceil(bytes / arenaAlignment) * arenaAlignment;

type Order = (a: Lifetime, b: Lifetime) => number;

const span = (item: Lifetime): number => item.last - item.first + 1;

const orders: readonly Order[] = [
  (a, b) => b.bytes - a.bytes || span(b) - span(a) || a.first - b.first,
  (a, b) => b.bytes * span(b) - a.bytes * span(a) || a.first - b.first,
  (a, b) => a.first - b.first || b.bytes - a.bytes,
  (a, b) => span(b) - span(a) || b.bytes - a.bytes,
];

/** Places every lifetime so that no two that overlap in time overlap in memory. */
export function planMemory(lifetimes: readonly Lifetime[]): MemoryPlan {
  const lowerBoundBytes = peak(lifetimes);
  let best: MemoryPlan | undefined;
  for (const order of orders) {
    const plan = place(lifetimes, order);
    if (best === undefined || plan.arenaBytes < best.arenaBytes) best = { ...plan, lowerBoundBytes };
    if (best.arenaBytes === lowerBoundBytes) break;
  }
  return best!;
}

function peak(lifetimes: readonly Lifetime[]): number {
  const change = new Map<number, number>();
  for (const { bytes, first, last } of lifetimes) {
    change.set(first, (change.get(first) ?? 0) + align(bytes));
    change.set(last + 1, (change.get(last + 1) ?? 0) - align(bytes));
  }
  let live = 0;
  let most = 0;
  for (const [, delta] of [...change].sort(([a], [b]) => a - b)) most = Math.max(most, live += delta);
  return most;
}

function place(lifetimes: readonly Lifetime[], order: Order): { offsets: number[]; arenaBytes: number } {
  const offsets = new Array<number>(lifetimes.length).fill(0);
  const sequence = lifetimes.map((_, i) => i).sort((a, b) => order(lifetimes[a], lifetimes[b]) || a - b);
  const placed: number[] = [];
  let arenaBytes = 0;
  for (const index of sequence) {
    const item = lifetimes[index];
    const size = align(item.bytes);
    const neighbours = placed
      .filter((other) => lifetimes[other].first <= item.last && item.first <= lifetimes[other].last)
      .sort((a, b) => offsets[a] - offsets[b]);
    offsets[index] = bestGap(neighbours.map((other) => [offsets[other], align(lifetimes[other].bytes)]), size);
    placed.push(index);
    arenaBytes = Math.max(arenaBytes, offsets[index] + size);
  }
  return { offsets, arenaBytes };
}

/** Start of the smallest gap of at least `size` between sorted [offset, bytes] ranges, or the end of the last one. */
function bestGap(ranges: readonly (readonly [number, number])[], size: number): number {
  let end = 0;
  let best = -1;
  let bestSize = Infinity;
  for (const [offset, bytes] of ranges) {
    const gap = offset - end;
    if (gap >= size && gap < bestSize) [best, bestSize] = [end, gap];
    end = Math.max(end, offset + bytes);
  }
  return best >= 0 ? best : end;
}

/** Plans the temporaries of a graph: the offset of each buffer in the arena. */
export function planGraph(
  graph: Graph,
): { offsets: Map<GraphBuffer, number>; arenaBytes: number; lowerBoundBytes: number } {
  const entries = [...usageOf(graph)].filter(([buffer]) => buffer.role === "temporary");
  const plan = planMemory(entries.map(([buffer, usage]) => ({ bytes: buffer.bytes, ...lifetimeOf(usage) })));
  return {
    offsets: new Map(entries.map(([buffer], i) => [buffer, plan.offsets[i]])),
    arenaBytes: plan.arenaBytes,
    lowerBoundBytes: plan.lowerBoundBytes,
  };
}
