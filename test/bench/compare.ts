import type { Figure, Machine, StoredRun } from "./record.ts";
import { median } from "./report.ts";

/** Two stored runs side by side. */

/** Of a figure that was measured once, nobody knows the spread: it has moved when it differs by more than this share. */
const singleTolerance = 0.1;

export interface Row {
  readonly name: string;
  readonly unit: string;
  /** Medians; undefined: that run has no such figure. */
  readonly base: number | undefined;
  readonly now: number | undefined;
  /** now / base */
  readonly ratio: number | undefined;
  /** "same": the medians are no further apart than the rounds of either run. */
  readonly verdict: "same" | "better" | "worse" | "new" | "gone";
}

/** What tells two machines apart, as "what: base, now"; empty: figures of both may be compared. */
export function machineDifferences(base: Machine, now: Machine): string[] {
  const keys = Object.keys(base) as Array<keyof Machine>;
  return keys.filter((key) => base[key] !== now[key]).map((key) => `${key}: ${base[key]}, ${now[key]}`);
}

/** A name in another unit is another figure. */
const keyOf = ({ name, unit }: Figure): string => `${name} ${unit}`;

/** All figures of both, in the order of the base, then those that are new. */
export function compareRuns(base: StoredRun, now: StoredRun): Row[] {
  const after = new Map(now.figures.map((figure) => [keyOf(figure), figure]));
  const before = new Set(base.figures.map(keyOf));
  return [
    ...base.figures.map((figure) => rowOf(figure, after.get(keyOf(figure)))),
    ...now.figures
      .filter((figure) => !before.has(keyOf(figure)))
      .map(({ name, unit, values }): Row => {
        return { name, unit, base: undefined, now: median(values), ratio: undefined, verdict: "new" };
      }),
  ];
}

function rowOf(base: Figure, now: Figure | undefined): Row {
  const { name, unit } = base;
  const was = median(base.values);
  if (now === undefined) return { name, unit, base: was, now: undefined, ratio: undefined, verdict: "gone" };
  const is = median(now.values);
  const moved = is - was;
  const spread = Math.max(spreadOf(base.values, was), spreadOf(now.values, was));
  const grewBetter = base.better === "more" ? moved > 0 : moved < 0;
  const verdict = Math.abs(moved) <= spread ? "same" : grewBetter ? "better" : "worse";
  return { name, unit, base: was, now: is, ratio: was === 0 ? undefined : is / was, verdict };
}

function spreadOf(values: readonly number[], base: number): number {
  if (values.length < 2) return Math.abs(base) * singleTolerance;
  return Math.max(...values) - Math.min(...values);
}

/** Lines of a table, what has moved marked at the end. */
export function tableOf(rows: readonly Row[]): string[] {
  const shown = (value: number | undefined): string =>
    value === undefined ? "-" : value.toLocaleString("en", { maximumSignificantDigits: 4, useGrouping: true });
  const cells = rows.map(({ name, unit, base, now, ratio, verdict }) => [
    ...[name, shown(base), shown(now), unit, ratio === undefined ? "-" : `${ratio.toFixed(2)} x`],
    verdict === "same" ? "" : verdict,
  ]);
  const all = [["", "base", "now", "", "ratio", ""], ...cells];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all.map((row) =>
    row
      .map((cell, column) =>
        [1, 2, 4].includes(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join("  ")
      .trimEnd(),
  );
}
