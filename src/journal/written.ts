/**
 * What the journal has made the disk write, for people who look after flash cards: every write call through `counting`, in the whole 4 KiB blocks
 * that it touches, since no card writes less.
 */
import type { Clock } from "../base/clock.ts";
import type { WrittenPerDay } from "../base/contracts.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Counter } from "../base/meter.ts";

const blockBytes = 4096;
const hourMs = 3600_000;
const hoursKept = 24;

/** Counts by hours, so that a day is 24 numbers. */
export class Written {
  readonly #clock: Clock;
  readonly #startedMs: number;
  /** Bytes of the hour `index % 24`, valid for the last 24. */
  readonly #hours: number[] = new Array<number>(hoursKept).fill(0);
  #hour = 0;
  readonly #total: Counter;

  constructor(clock: Clock, total: Counter) {
    this.#clock = clock;
    this.#total = total;
    this.#startedMs = clock.monotonicMs();
  }

  /** Since the start. */
  get bytes(): number {
    return this.#total.value;
  }

  add(offset: number, length: number): void {
    if (length === 0) return;
    const blocks = Math.ceil((offset + length) / blockBytes) - Math.floor(offset / blockBytes);
    this.#turn();
    this.#total.value += blocks * blockBytes;
    const at = this.#hour % hoursKept;
    this.#hours[at] = this.#hours[at]! + blocks * blockBytes;
  }

  /** Of the last 24 hours (of 23 to 24 of them); younger than that, what a day would make at this rate. */
  perDay(): WrittenPerDay {
    this.#turn();
    const ranMs = this.#clock.monotonicMs() - this.#startedMs;
    const bytes = this.#hours.reduce((sum, of) => sum + of, 0);
    if (ranMs >= hoursKept * hourMs) return { bytes, extrapolated: false };
    // The first minute says little: zero-filling a segment in it is not what a day will be like.
    return { bytes: Math.round((bytes * hoursKept * hourMs) / Math.max(ranMs, 60_000)), extrapolated: true };
  }

  #turn(): void {
    const now = Math.floor((this.#clock.monotonicMs() - this.#startedMs) / hourMs);
    if (now - this.#hour >= hoursKept) this.#hours.fill(0);
    else for (let hour = this.#hour + 1; hour <= now; hour += 1) this.#hours[hour % hoursKept] = 0;
    this.#hour = Math.max(this.#hour, now);
  }
}

/** The same files, their writes counted. */
export function counting(files: Files, written: Written): Files {
  const counted = (file: OpenFile): OpenFile => ({
    async write(buffers, position) {
      const bytes = await file.write(buffers, position);
      written.add(position, bytes);
      return bytes;
    },
    read: (target, position) => file.read(target, position),
    datasync: () => file.datasync(),
    size: () => file.size(),
    truncate: (size) => file.truncate(size),
    close: () => file.close(),
  });
  return {
    ...files,
    open: async (path, mode) => {
      const file = await files.open(path, mode);
      return mode === "read" ? file : counted(file);
    },
  };
}
