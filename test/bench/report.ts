/** What all benchmarks print with. */
export const say = (line: string): unknown => process.stdout.write(`${line}\n`);

export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

export const thousands = (value: number): string => `${(value / 1000).toFixed(1)}k/s`;

export const mebibytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
