/** Sizes and durations as people write them: `16 MiB`, `256KiB`, `500ms`, `7d`. */

const sizeUnits: Readonly<Record<string, number>> = {
  b: 1,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
};

const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** For the JSON Schema; the parsers below decide. */
export const sizePattern = "^[0-9]+(\\.[0-9]+)? *([kKmMgGtT][iI]?)?[bB]?$";
export const durationPattern = "^(0|[0-9]+(\\.[0-9]+)? *(ms|s|m|h|d))$";

export const sizeHint = "bytes, or with a unit: 256 KiB, 16 MiB, 1 GiB";
export const durationHint = "a number with a unit: 500ms, 10s, 5m, 2h, 7d";

/** Bytes, or undefined when `value` is not a size. A number is bytes; KiB, MiB... are powers of 1024, kB, MB... of 1000. */
export function parseSize(value: number | string): number | undefined {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  const match = /^(\d{1,16}(?:\.\d{1,9})?) *([a-z]{0,3})$/i.exec(value.trim());
  if (match === null) return undefined;
  return scaled(match[1], sizeUnits[(match[2] || "b").toLowerCase()]);
}

/** Milliseconds, or undefined when `value` is not a duration. A bare number is refused (seconds or milliseconds?), but for 0. */
export function parseDuration(value: number | string): number | undefined {
  if (value === 0) return 0;
  if (typeof value === "number") return undefined;
  const text = value.trim();
  if (text === "0") return 0;
  const match = /^(\d{1,16}(?:\.\d{1,9})?) *([a-z]{1,2})$/.exec(text);
  if (match === null) return undefined;
  return scaled(match[1], durationUnits[match[2] ?? ""]);
}

function scaled(amount: string | undefined, unit: number | undefined): number | undefined {
  if (unit === undefined) return undefined;
  const value = Math.round(Number(amount) * unit);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** The shortest text in powers of 1024 that `parseSize` reads back exactly. @param bytes a whole number >= 0 */
export function formatSize(bytes: number): string {
  for (const [unit, factor] of [
    ["TiB", 2 ** 40],
    ["GiB", 2 ** 30],
    ["MiB", 2 ** 20],
    ["KiB", 2 ** 10],
  ] as const) {
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor} ${unit}`;
  }
  return `${bytes} B`;
}

/** The shortest text that `parseDuration` reads back exactly. @param ms a whole number >= 0 */
export function formatDuration(ms: number): string {
  for (const unit of ["d", "h", "m", "s"]) {
    const factor = durationUnits[unit] ?? 1;
    if (ms >= factor && ms % factor === 0) return `${ms / factor}${unit}`;
  }
  return `${ms}ms`;
}
