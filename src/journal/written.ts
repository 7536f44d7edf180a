/**
 * What the journal has made the disk write, for people who look after flash cards: every write call through `counting`, in the whole 4 KiB blocks
 * that it touches, since no card writes less. Kept over restarts in a small map, written once an hour and at the end with what is written anyway, so
 * that counting does not wear the card itself; a crash forgets less than an hour's.
 */
import type { WrittenPerDay } from "../base/contracts.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Counter } from "../base/meter.ts";

const blockBytes = 4096;
const hourMs = 3600_000;
const hoursKept = 24;
const map = "storage-written";
const key = "hours";

export interface WrittenEnvironment {
  readonly storeMs: () => number;
  /** A restored folder is another card's: its count begins anew. */
  readonly epoch: number;
  readonly kept: Uint8Array | undefined;
  /** Since the start of the process. */
  readonly total: Counter;
}

/** As it is kept: JSON. */
interface Kept {
  readonly epoch: number;
  /** Store clock of the first count. */
  readonly firstMs: number;
  /** The newest hour, and the bytes of hour h at h % 24. */
  readonly hour: number;
  readonly hours: readonly number[];
  readonly total: number;
}

/** Counts by hours of the store clock, so that a day is 24 numbers. */
export class Written {
  static readonly map = map;
  static readonly key = key;
  readonly #env: WrittenEnvironment;
  readonly #firstMs: number;
  readonly #hours: number[];
  #hour: number;
  /** Of earlier runs. */
  readonly #before: number;
  #keptHour: number;
  #keptBytes = 0;

  constructor(env: WrittenEnvironment) {
    this.#env = env;
    const kept = read(env.kept, env.epoch);
    this.#firstMs = kept?.firstMs ?? env.storeMs();
    this.#hours = [...(kept?.hours ?? new Array<number>(hoursKept).fill(0))];
    this.#hour = kept?.hour ?? Math.floor(env.storeMs() / hourMs);
    this.#before = kept?.total ?? 0;
    this.#turn();
    this.#keptHour = this.#hour;
  }

  /** Since the start of the process. */
  get bytes(): number {
    return this.#env.total.value;
  }

  /** Since the data folder was made. */
  get totalBytes(): number {
    return this.#before + this.#env.total.value;
  }

  add(offset: number, length: number): void {
    if (length === 0) return;
    const blocks = Math.ceil((offset + length) / blockBytes) - Math.floor(offset / blockBytes);
    this.#turn();
    this.#env.total.value += blocks * blockBytes;
    const at = this.#hour % hoursKept;
    this.#hours[at] = this.#hours[at]! + blocks * blockBytes;
  }

  /** Of the last 24 hours (of 23 to 24 of them); younger than that, what a day would make at this rate. */
  perDay(): WrittenPerDay {
    this.#turn();
    const measuredMs = Math.round(this.#env.storeMs() - this.#firstMs);
    const bytes = this.#hours.reduce((sum, of) => sum + of, 0);
    if (measuredMs >= hoursKept * hourMs) return { bytes, extrapolated: false, measuredMs };
    // The first minute says little: zero-filling a segment in it is not what a day will be like.
    const share = Math.max(measuredMs, 60_000) / (hoursKept * hourMs);
    return { bytes: Math.round(bytes / share), extrapolated: true, measuredMs };
  }

  /** What is to be kept now: undefined when it was kept this hour. @param ending the process ends */
  due(ending: boolean): Uint8Array | undefined {
    this.#turn();
    if (this.bytes === this.#keptBytes || (!ending && this.#hour === this.#keptHour)) return undefined;
    this.#keptHour = this.#hour;
    this.#keptBytes = this.bytes;
    const kept: Kept = {
      epoch: this.#env.epoch,
      firstMs: Math.round(this.#firstMs),
      hour: this.#hour,
      hours: this.#hours,
      total: this.totalBytes,
    };
    return Buffer.from(JSON.stringify(kept));
  }

  #turn(): void {
    const now = Math.floor(this.#env.storeMs() / hourMs);
    if (now - this.#hour >= hoursKept) this.#hours.fill(0);
    else for (let hour = this.#hour + 1; hour <= now; hour += 1) this.#hours[hour % hoursKept] = 0;
    this.#hour = Math.max(this.#hour, now);
  }
}

/** Undefined when there is none, or none that makes sense here. */
function read(bytes: Uint8Array | undefined, epoch: number): Kept | undefined {
  if (bytes === undefined) return undefined;
  try {
    const kept = JSON.parse(Buffer.from(bytes).toString()) as Kept;
    const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
    const numbers = [kept.firstMs, kept.hour, kept.total, ...kept.hours];
    return kept.epoch === epoch && kept.hours.length === hoursKept && numbers.every(isCount) ? kept : undefined;
  } catch {
    return undefined;
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
