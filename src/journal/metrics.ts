/** What the journal tells about itself on /metrics. */
import type { Counter, Histogram, Meter } from "../base/meter.ts";

const syncBounds = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const groupBounds = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

export class StoreMetrics {
  readonly syncSeconds: Histogram;
  readonly groupRecords: Histogram;
  readonly corruptRecords: Counter;
  readonly refused: Counter;
  readonly segmentsMerged: Counter;
  readonly bytesGivenBack: Counter;
  readonly mergeFailures: Counter;
  readonly #meter: Meter;

  constructor(
    meter: Meter,
    read: { bytes: () => number; segments: () => number; pending: () => number; written: () => number },
  ) {
    this.#meter = meter;
    meter.gauge("tidegate_storage_bytes", "Bytes of the journal's files", read.bytes);
    meter.gauge("tidegate_storage_segments", "Segments of the journal", read.segments);
    meter.gauge("tidegate_storage_pending_bytes", "Bytes that are not on the disk yet", read.pending);
    meter.gauge("tidegate_storage_written_bytes_total", "Bytes written to segments since the start", read.written);
    this.syncSeconds = meter.histogram("tidegate_storage_sync_seconds", "Writing and syncing one group", syncBounds);
    this.groupRecords = meter.histogram("tidegate_storage_group_records", "Records that one sync covered", groupBounds);
    this.corruptRecords = meter.counter("tidegate_storage_corrupt_records_total", "Records lost to damage");
    this.refused = meter.counter("tidegate_storage_refused_total", "Publishes refused because the store is full");
    this.segmentsMerged = meter.counter("tidegate_storage_merged_segments_total", "Segments that merging replaced");
    this.bytesGivenBack = meter.counter("tidegate_storage_merged_bytes_total", "Bytes that merging gave back");
    this.mergeFailures = meter.counter("tidegate_storage_merge_failures_total", "Merges that failed");
  }

  dropped(uplink: string, reason: string): Counter {
    return this.#meter.counter("tidegate_storage_dropped_total", "Stored messages that will not be sent", {
      uplink,
      reason,
    });
  }
}
