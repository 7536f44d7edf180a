/** What the journal tells about itself on /metrics. */
import type { StoreStats } from "../base/contracts.ts";
import type { Counter, Histogram, Meter } from "../base/meter.ts";
import type { Limit } from "./space.ts";
import type { State } from "./state.ts";
import { Written } from "./written.ts";

const syncBounds = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const groupBounds = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/** What only the store knows about itself. */
export type StoreView = Pick<
  StoreStats,
  "bytes" | "segments" | "spares" | "pendingBytes" | "state" | "problem" | "recovery"
>;

const advice: Readonly<Record<Limit, string>> = {
  maxBytes: "storage.maxBytes is reached: raise it, or see why the uplinks do not take what waits",
  minFreeBytes: "the disk has less than storage.minFreeBytes left: make room on it, or lower that",
  disk: "the disk is full: make room on it",
};

/** @param refusing what keeps messages from being stored */
export function stateOf(failed: Error | undefined, refusing: Limit | undefined): Pick<StoreStats, "state" | "problem"> {
  if (failed !== undefined) return { state: "failed", problem: failed.message };
  if (refusing === undefined) return { state: "ok" };
  return { state: "full", problem: `${advice[refusing]}. Durable messages are refused` };
}

export class StoreMetrics {
  readonly syncSeconds: Histogram;
  readonly groupRecords: Histogram;
  readonly corruptRecords: Counter;
  readonly refused: Counter;
  readonly written: Written;
  readonly #droppedReferences: Counter;
  readonly segmentsMerged: Counter;
  readonly bytesGivenBack: Counter;
  readonly mergeFailures: Counter;
  readonly #meter: Meter;
  readonly #view: () => StoreView;
  readonly #state: State;

  constructor(
    meter: Meter,
    of: { readonly storeMs: () => number; readonly epoch: number; readonly state: State },
    view: () => StoreView,
  ) {
    const { storeMs, epoch, state } = of;
    this.#meter = meter;
    this.#view = view;
    this.#state = state;
    meter.gauge("tidegate_storage_bytes", "Bytes of the journal's files", () => view().bytes);
    meter.gauge("tidegate_storage_segments", "Segments of the journal", () => view().segments);
    meter.gauge("tidegate_storage_spares", "Prepared segments", () => view().spares);
    meter.gauge("tidegate_storage_pending_bytes", "Bytes that are not on the disk yet", () => view().pendingBytes);
    for (const name of ["ok", "full", "failed"] as const) {
      const read = (): number => (view().state === name ? 1 : 0);
      meter.gauge("tidegate_storage_state", "1 for the state that the journal is in", read, { state: name });
    }
    const count = (name: string, help: string): Counter => meter.counter(`tidegate_storage_${name}`, help);
    const total = count("written_bytes_total", "What the disk was made to write, in 4 KiB blocks");
    this.written = new Written({ storeMs, epoch, kept: state.maps.get(Written.map)?.get(Written.key), total });
    meter.gauge(
      "tidegate_storage_written_bytes_per_day",
      "Written in the last 24 hours; in the first day what a day makes at the rate so far",
      () => this.written.perDay().bytes,
    );
    this.syncSeconds = meter.histogram("tidegate_storage_sync_seconds", "Writing and syncing one group", syncBounds);
    this.groupRecords = meter.histogram("tidegate_storage_group_records", "Records that one sync covered", groupBounds);
    this.corruptRecords = count("corrupt_records_total", "Records lost to damage");
    this.refused = count("refused_total", "Publishes refused because the store is full");
    this.#droppedReferences = count("dropped_references_total", "Messages that sessions lost to damage");
    this.segmentsMerged = count("merged_segments_total", "Segments that merging replaced");
    this.bytesGivenBack = count("merged_bytes_total", "Bytes that merging gave back");
    this.mergeFailures = count("merge_failures_total", "Merges that failed");
  }

  /** Stored messages of an uplink that will not be sent. */
  dropped(uplink: string, reason: string): Counter {
    return this.#meter.counter("tidegate_storage_dropped_total", "Stored messages that will not be sent", {
      uplink,
      reason,
    });
  }

  /** The same by the rule that they were accepted by, named by its filter. */
  droppedByRule(uplink: string, rule: string, reason: string): Counter {
    return this.#meter.counter("tidegate_uplink_dropped_total", "Stored messages that will not be sent, by rule", {
      ...{ uplink, rule, reason },
    });
  }

  /** Stored messages cannot be read any more. @param uplink whose they were; undefined for a reference */
  lost(messages: number, uplink: string | undefined): void {
    this.corruptRecords.value += messages;
    if (uplink === undefined) this.#droppedReferences.value += messages;
  }

  stats(): Omit<StoreStats, "orphaned" | "room"> {
    const { count } = this.syncSeconds;
    const mean = (sum: number): number => (count === 0 ? 0 : sum / count);
    const dropped: Record<string, Readonly<Record<string, number>>> = {};
    for (const { name, dropped: reasons } of this.#state.uplinks.values()) {
      if (Object.keys(reasons).length > 0) dropped[name] = { ...reasons };
    }
    return {
      ...this.#view(),
      writtenBytes: this.written.bytes,
      writtenTotalBytes: this.written.totalBytes,
      writtenPerDay: this.written.perDay(),
      syncs: { count, meanMs: mean(this.syncSeconds.sum) * 1000, meanRecords: mean(this.groupRecords.sum) },
      corruptRecords: this.corruptRecords.value,
      refused: this.refused.value,
      dropped,
      droppedReferences: this.#droppedReferences.value,
    };
  }
}
