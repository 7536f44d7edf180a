import type { Meter } from "../../src/base/meter.ts";

/** Of a series as /metrics names it, labels included; NaN: there is none. */
export function metricOf(meter: Meter, series: string): number {
  const line = meter
    .expose()
    .split("\n")
    .find((each) => each.startsWith(`${series} `));
  return Number(line?.slice(series.length));
}
