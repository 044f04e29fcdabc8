/**
 * What times prove. This is the noise rule of `mllm tune`:
 *
 * 1. Programs run in turns, round after round, the default twice in each: the mean of both is what a candidate is held
 *    against. A round during which the machine had other work does not count (`load.ts`). A time that lies a fifth above
 *    the median of its program at its point was interrupted, and counts as that median, unless a quarter of them do.
 * 2. The gain of a round is the geometric mean over the points (numbers of tokens at a position), that of a candidate the
 *    median over the rounds. It has to reach a margin, to show in three of four rounds, to save a microsecond of a
 *    command, and at no point may the candidate be slower than both defaults by the margin.
 * 3. Where the defaults themselves differ by the margin and by a microsecond, nothing is proven.
 * 4. Nor is it by a gain that no choice of a kernel has: twice the speed and more, and more than 50 µs of a command.
 *
 * What seems faster runs once more beside the default alone, with two thirds of the margin, for whoever was lucky is so
 * no longer. What is unclear by 3 or 4 is measured again, three times in all; then the default stays.
 * @module
 */

/** Nanoseconds of one program for one kind of command: per point, per round. */
export type Times = readonly (readonly number[])[];

/** How many times as fast as the default, 1 when not for certain; or that the measurement proves nothing. */
export type Verdict = number | "unclear";

/** The default as it was measured first and last in every round. */
export type Controls = readonly [Times, Times];

/** A time so many times the median was interrupted. */
const INTERRUPTED = 1.2;
/** A candidate must be faster than the default in this share of the rounds, */
const SHARE_MIN = 0.75;
/** and save so many nanoseconds of a command: less is where a program happens to lie in memory. */
const SAVED_NS_MIN = 1000;
/** A gain above this is none of the kernel's, */
const GAIN_MAX = 2;
/** unless no more is saved than giving a command to many threads may cost. */
const THREADS_NS_MAX = 50_000;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The times with medians in the place of those that were interrupted. */
function uninterrupted(times: Times): Times {
  return times.map((rounds) => {
    const usual = median(rounds);
    const most = INTERRUPTED * usual;
    const rare = rounds.filter((ns) => ns > most).length < rounds.length / 4;
    return rare ? rounds.map((ns) => ns > most ? usual : ns) : rounds;
  });
}

/** `f` of both, point by point and round by round. */
function zip(a: Times, b: Times, f: (a: number, b: number) => number): number[][] {
  return a.map((times, point) => times.map((ns, round) => f(ns, b[point][round])));
}

/** How many times as fast as `standard` in each round: the geometric mean over the points. */
function gains(candidate: Times, standard: Times): number[] {
  const logs = zip(candidate, standard, (a, b) => Math.log(b / a));
  return standard[0].map((_, round) => Math.exp(mean(logs.map((rounds) => rounds[round]))));
}

/** Nanoseconds that a command takes less than by `standard`: the mean over the points. */
function saved(candidate: Times, standard: Times): number {
  return mean(standard.map((times, point) => median(times) - median(candidate[point])));
}

/** Whether the default is as fast as itself, within the margin. */
function agree([first, second]: Controls, margin: number): boolean {
  const gain = median(gains(uninterrupted(first), uninterrupted(second)));
  return Math.max(gain, 1 / gain) < margin || Math.abs(saved(first, second)) < SAVED_NS_MIN;
}

/** What the rounds say of a candidate. `margin` is the least gain that counts. */
export function verdict(candidate: Times, controls: Controls, margin: number): Verdict {
  if (!agree(controls, margin)) return "unclear";
  const [first, last] = controls.map(uninterrupted);
  const standard = zip(first, last, (a, b) => (a + b) / 2);
  const all = gains(uninterrupted(candidate), standard);
  const gain = median(all);
  const savedNs = saved(candidate, standard);
  const wins = all.filter((one) => one > 1).length;
  const loses = candidate.some((times, point) =>
    median(times) > margin * Math.max(...controls.map((control) => median(control[point])))
  );
  if (gain < margin || wins < SHARE_MIN * all.length || savedNs < SAVED_NS_MIN || loses) return 1;
  return gain > GAIN_MAX && savedNs > THREADS_NS_MAX ? "unclear" : gain;
}

/** The candidate with the largest gain: its index, undefined where the default stays. */
export function bestCandidate(
  candidates: readonly Times[],
  controls: Controls,
  margin: number,
): number | undefined | "unclear" {
  const verdicts = candidates.map((one) => verdict(one, controls, margin));
  if (!agree(controls, margin) || verdicts.includes("unclear")) return "unclear";
  const most = Math.max(1, ...verdicts as number[]);
  return most > 1 ? verdicts.indexOf(most) : undefined;
}

/**
 * Up to how many tokens `few` is faster than `many`, by their medians at the points: the bound that makes the sum of
 * both smallest (of logarithms). 0 when `many` always is; else one of `points`.
 */
export function bestBound(few: Times, many: Times, points: readonly number[]): number {
  let [bound, sum, least] = [0, 0, 0];
  for (const [i, tokens] of points.entries()) {
    sum += Math.log(median(few[i]) / median(many[i]));
    if (sum < least) [bound, least] = [tokens, sum];
  }
  return bound;
}
