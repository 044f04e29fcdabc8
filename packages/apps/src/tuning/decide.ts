/** Which of several candidates is faster for certain, from times that were taken in turns. */

/** Nanoseconds of one candidate: per point (a number of tokens), per round. */
export type Times = readonly (readonly number[])[];

/** A candidate must be faster than the default in this share of the rounds, */
const SHARE_MIN = 0.75;
/** and save so many nanoseconds of a command: less is where a program happens to lie in memory. */
const SAVED_NS_MIN = 1000;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** How many times as fast as the default a candidate is in each round: the geometric mean over the points. */
function gains(candidate: Times, standard: Times): number[] {
  return standard[0].map((_, round) =>
    Math.exp(
      standard.reduce((sum, times, point) => sum + Math.log(times[round] / candidate[point][round]), 0) /
        standard.length,
    )
  );
}

/** The median gain; 1 when it is less than `least`, saves next to nothing or does not show in most rounds. */
export function certainGain(candidate: Times, standard: Times, least: number): number {
  const saved = standard.reduce((sum, times, point) => sum + median(times) - median(candidate[point]), 0);
  if (saved < SAVED_NS_MIN * standard.length) return 1;
  const all = gains(candidate, standard);
  const wins = all.filter((gain) => gain > 1).length;
  const gain = median(all);
  return gain >= least && wins >= SHARE_MIN * all.length ? gain : 1;
}

/** The index of the candidate with the largest certain gain over the first one; 0 when there is none. */
export function bestCandidate(candidates: readonly Times[], least: number): number {
  let [best, most] = [0, 1];
  for (let i = 1; i < candidates.length; i++) {
    const gain = certainGain(candidates[i], candidates[0], least);
    if (gain > most) [best, most] = [i, gain];
  }
  return best;
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
