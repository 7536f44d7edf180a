import { median } from "./report.ts";

/** One reading of something that should not grow. */
export interface Sample {
  readonly minutes: number;
  readonly value: number;
}

/** What readings over time say of growth, by a straight line through them (least squares). */
export interface Trend {
  /** Of the line, each minute. */
  readonly slope: number;
  /** Of the line, from the first reading to the last. */
  readonly growth: number;
  /** Standard deviation of the readings from the line. */
  readonly noise: number;
  /** Medians of the first and the last tenth. */
  readonly first: number;
  readonly last: number;
  /** The line rises by no more than the readings differ from it. */
  readonly flat: boolean;
}

/** @param samples in the order of time @throws Error with fewer than ten: they say nothing */
export function trendOf(samples: readonly Sample[]): Trend {
  const count = samples.length;
  if (count < 10) throw new Error(`${count} readings are too few for a trend`);
  const mean = (pick: (sample: Sample) => number): number => samples.reduce((sum, one) => sum + pick(one), 0) / count;
  const [middle, level] = [mean(({ minutes }) => minutes), mean(({ value }) => value)];
  const spread = mean(({ minutes }) => (minutes - middle) ** 2);
  const slope = mean(({ minutes, value }) => (minutes - middle) * (value - level)) / spread;
  const noise = Math.sqrt(mean(({ minutes, value }) => (value - level - slope * (minutes - middle)) ** 2));
  const growth = slope * ((samples.at(-1)?.minutes ?? 0) - (samples[0]?.minutes ?? 0));
  const tenth = Math.ceil(count / 10);
  const values = samples.map(({ value }) => value);
  const [first, last] = [median(values.slice(0, tenth)), median(values.slice(-tenth))];
  return { slope, growth, noise, first, last, flat: growth <= noise };
}
