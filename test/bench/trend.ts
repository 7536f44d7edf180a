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
  /** A slope of zero is within what is known. */
  readonly flat: boolean;
}

const stretches = 10;
/** Student's t for 95 % on both sides and ten points on a line. */
const t = 2.306;

const meanOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** @param samples in the order of time, evenly spaced @throws Error with fewer than three for each stretch: they say nothing */
export function trendOf(samples: readonly Sample[]): Trend {
  const count = samples.length;
  if (count < 3 * stretches) throw new Error(`${count} readings are too few for a trend`);
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
  return { slope, uncertainty, first, last, flat: slope <= uncertainty };
}
