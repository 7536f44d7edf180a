import { median } from "./report.ts";

/** One reading of something that should not grow. */
export interface Sample {
  readonly minutes: number;
  readonly value: number;
}

/**
 * What readings over time say of growth, by a straight line through them (least squares). Readings that follow each other are alike: memory goes up and
 * down over minutes. So the line goes through the means of ten stretches, and what these differ from it says how well the slope is known.
 */
export interface Trend {
  /** Of the line, each minute. */
  readonly slope: number;
  /** With 95 % the slope is within this of the true one. */
  readonly uncertainty: number;
  /** Medians of the first and the last tenth. */
  readonly first: number;
  readonly last: number;
}

const stretches = 10;
/** Three for each stretch. */
export const trendReadingsMin = 3 * stretches;
/** Student's t for 95 % on both sides and ten points on a line. */
const t = 2.306;

const meanOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** @param samples in the order of time, evenly spaced @throws Error with fewer than three for each stretch: they say nothing */
export function trendOf(samples: readonly Sample[]): Trend {
  const count = samples.length;
  if (count < trendReadingsMin) throw new Error(`${count} readings are too few for a trend`);
  const means = Array.from({ length: stretches }, (_, n): Sample => {
    const some = samples.slice(Math.floor((n * count) / stretches), Math.floor(((n + 1) * count) / stretches));
    return { minutes: meanOf(some.map(({ minutes }) => minutes)), value: meanOf(some.map(({ value }) => value)) };
  });
  const [middle, level] = [meanOf(means.map(({ minutes }) => minutes)), meanOf(means.map(({ value }) => value))];
  const sum = (of: (sample: Sample) => number): number => means.reduce((all, one) => all + of(one), 0);
  const spread = sum(({ minutes }) => (minutes - middle) ** 2);
  const slope = sum(({ minutes, value }) => (minutes - middle) * (value - level)) / spread;
  const rest = sum(({ minutes, value }) => (value - level - slope * (minutes - middle)) ** 2);
  const uncertainty = t * Math.sqrt(rest / (stretches - 2) / spread);
  const tenth = Math.ceil(count / 10);
  const values = samples.map(({ value }) => value);
  const [first, last] = [median(values.slice(0, tenth)), median(values.slice(-tenth))];
  return { slope, uncertainty, first, last };
}

/**
 * The lowest reading of each stretch of so many minutes: what waits to be collected goes up and down and is no growth, what is kept raises the
 * lowest as well. A stretch that is not whole is left out.
 */
export function floorsOf(samples: readonly Sample[], minutes: number): Sample[] {
  const start = samples[0]?.minutes ?? 0;
  const floors = new Map<number, Sample>();
  for (const sample of samples) {
    const at = Math.floor((sample.minutes - start) / minutes);
    const least = floors.get(at);
    if (least === undefined || sample.value < least.value) floors.set(at, sample);
  }
  const end = samples.at(-1)?.minutes ?? 0;
  return [...floors].filter(([at]) => start + (at + 1) * minutes <= end).map(([, floor]) => floor);
}

/** What is said of growth: `unknown` where the readings allow for both answers. */
export type Verdict = "flat" | "grows" | "unknown";

export interface Growth {
  readonly verdict: Verdict;
  readonly trend: Trend;
  /** A leak of so much each minute would have been told, nineteen times in twenty. */
  readonly tellable: number;
}

/** The kernel counts resident pages on each core apart and adds up to 32 of each later: of two cores so many kB that are there or not. */
const countedKb = 256;
/** Of a line's uncertainty: what is so much steeper is seen in nineteen runs of twenty. */
const seenFrom = 1.7;

/**
 * A judgement of resident memory in kB, by its lowest readings.
 *  - It grows when the line rises for certain (95 %), and by more in all than the kernel counts exactly.
 *  - It is flat when it does not, and a leak of `leak` kB a minute is out of the question (95 %).
 *  - Else it is not known: the readings differ by too much for so short a time.
 * No run of an hour rules out what would fill a machine in years; what it could tell is said with it.
 */
export function growthOf(floors: readonly Sample[], leak: number): Growth {
  const trend = trendOf(floors);
  const span = (floors.at(-1)?.minutes ?? 0) - (floors[0]?.minutes ?? 0);
  const counted = countedKb / span;
  const grows = trend.slope > trend.uncertainty && trend.slope > counted;
  const verdict = grows ? "grows" : trend.slope + trend.uncertainty < leak ? "flat" : "unknown";
  return { verdict, trend, tellable: Math.max(counted, seenFrom * trend.uncertainty) };
}
