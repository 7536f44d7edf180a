/** The backups of an open store: one at a time, with everything that it needs held while it is made. */

import { join } from "node:path";
import type { BackupInfo, BackupRequest } from "../base/contracts.ts";
import { type BackupItem, type BackupPlace, type BackupPlan, BackupWriter, backupError } from "./backup.ts";
import { checkpointName, segmentName } from "./format.ts";
import type { Maintenance } from "./maintenance.ts";
import type { SegmentTable } from "./segments.ts";
import type { GroupWriter } from "./writer.ts";

export interface BackupSource extends BackupPlace {
  readonly segments: SegmentTable;
  readonly writer: GroupWriter;
  readonly maintenance: Maintenance;
  readonly storeId: Buffer;
  readonly epoch: number;
}

export class Backups {
  readonly #source: BackupSource;
  readonly #ending = new AbortController();
  #running: Promise<BackupInfo> | undefined;

  constructor(source: BackupSource) {
    this.#source = source;
  }

  /** @throws TidegateError TG_BACKUP */
  async make(request: BackupRequest): Promise<BackupInfo> {
    if (this.#ending.signal.aborted) throw backupError("the gateway is stopping: no backup is made now");
    if (this.#running !== undefined) throw backupError("another backup is being made: wait for it");
    const signals = [this.#ending.signal, ...(request.signal === undefined ? [] : [request.signal])];
    this.#running = this.#make({ ...request, signal: AbortSignal.any(signals) });
    try {
      return await this.#running;
    } finally {
      this.#running = undefined;
    }
  }

  /** Ends the one that is being made. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.#running?.catch(() => undefined);
  }

  async #make(request: BackupRequest): Promise<BackupInfo> {
    const writer = new BackupWriter(this.#source, request);
    await writer.begin();
    const release = await this.#source.maintenance.hold();
    try {
      return await writer.write(await this.#plan());
    } finally {
      release();
    }
  }

  /** The segments as they are in this turn; what is not durable is not in it: nobody was told of that. */
  async #plan(): Promise<BackupPlan> {
    const { segments, writer, maintenance, storeId, epoch, files, dir } = this.#source;
    const { durablePosition: position, durableGroup: group } = writer;
    const items: BackupItem[] = [];
    const numbers = maintenance.checkpoints.slice();
    for (const segment of segments.list) {
      // A segment that begins where the durable bytes end may not be on the disk yet, and has nothing to give.
      if (segment.fileBytes === 0 || segment.base >= position) continue;
      const bytes = segment.offsetOf(Math.min(segment.end, position));
      const sealed = segment !== writer.openSegment && segment.end <= position;
      items.push({ name: segmentName(segment.number), bytes, sealed });
    }
    if (items.length + numbers.length === 0) throw backupError("nothing is on the disk yet: there is nothing to save");
    for (const number of numbers) {
      const name = checkpointName(number);
      items.push({ name, bytes: (await files.stat(join(dir, name))).size, sealed: true });
    }
    return { items, store: storeId.toString("hex"), epoch, group, position };
  }
}
