/** Opens the data folder: locks it, recovers what is there, and begins a new segment. */
import { randomBytes } from "node:crypto";
import type { RecoveryReport, Store } from "../base/contracts.ts";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import { type Folder, surveyFolder, sweepDebris } from "./folder.ts";
import { checkpointMagic, checkpointName, segmentMagic } from "./format.ts";
import { type ResolvedOptions, resolveOptions, type StoreOptions } from "./options.ts";
import { onlyOurs } from "./ownFiles.ts";
import { readingTwice } from "./readTwice.ts";
import { type Recovered, Recovery } from "./recovery.ts";
import { findRestore, type Restore } from "./restore.ts";
import { settleTail } from "./settleTail.ts";
import { JournalStore } from "./store.ts";
import { StoreClock } from "./storeClock.ts";

export type { StoreOptions } from "./options.ts";

/**
 * @throws TidegateError TG_DATA_DIR (in use, cannot be made or read, no permission to write), TG_STORE_FOREIGN (of a newer version; untouched). Damage never makes it
 *   throw: see `stats().recovery`. A disk that takes no writes opens too, with `failed` set.
 */
export async function openStore(given: StoreOptions): Promise<Store> {
  const options = resolveOptions(given);
  const { dir, files, clock, log } = options;
  const startedMs = clock.monotonicMs();
  const unlock = await claim(options);
  try {
    const { folder, restore, found } = await recover(options);
    await settleTail(options, folder, found.unproven);
    const debris = await onlyOurs(options, folder.debris, segmentMagic);
    const damaged = await onlyOurs(options, folder.damagedCheckpoints.map(checkpointName), checkpointMagic);
    await sweepDebris(files, dir, debris).catch(() => undefined);
    // Debris that came back behind a newer segment would count as damage.
    if (debris.length > 0) await files.syncDir(dir).catch(() => undefined);
    const storeClock = new StoreClock(clock);
    storeClock.resume(found, options.trustWallClock);
    const { clean, records, corruptRecords, tornBytes, losses } = found;
    const from = beginning(folder, found);
    const fresh = folder.storeId === undefined;
    const recovery: RecoveryReport = {
      clean: fresh || clean,
      records,
      corruptRecords,
      tornBytes,
      losses,
      ms: Math.round(clock.monotonicMs() - startedMs),
    };
    const store = new JournalStore({
      ...{ options, state: found.state, recovery, unlock },
      storeId: folder.storeId ?? randomBytes(8),
      epoch: restore?.epoch ?? (fresh ? Math.max(Math.floor(clock.wallMs()), folder.epoch + 1) : folder.epoch),
      storeMs: storeClock.nowMs,
      from,
      checkpoints: folder.kept,
      damagedCheckpoints: folder.damagedCheckpoints.filter((number) => damaged.includes(checkpointName(number))),
      nextCheckpoint: folder.checkpointNumberMax + 1,
    });
    await store.begin();
    await refuseForbidden(store, dir);
    await restore?.finish(store, from.group).catch(async (error: unknown) => {
      await store.close().catch(() => undefined);
      throw error;
    });
    const { losses: first, ...counts } = recovery;
    const line = { ...counts, first: first[0], segments: found.state.segments.list.length };
    if (corruptRecords > 0) log.error(line, "journal: opened with losses");
    else log.info(line, "journal: opened");
    return store;
  } catch (error) {
    await unlock().catch(() => undefined);
    throw error;
  }
}

const dataDirError = (dir: string, error: unknown): TidegateError =>
  new TidegateError(
    "TG_DATA_DIR",
    `data folder ${dir}: ${messageOf(error)}. It must be a folder that this user may read and write: \`mkdir -p\` and \`chown\` it, or set gateway.dataDir`,
    { cause: error },
  );

/** A folder that may not be written to is a mistake of who set it up, not of the disk: said at once, before anybody relies on it. */
async function refuseForbidden(store: Store, dir: string): Promise<void> {
  const cause = store.failed?.cause;
  if (!["EACCES", "EPERM"].includes(errnoOf(cause))) return;
  await store.close();
  throw dataDirError(dir, cause);
}

async function claim({ dir, files, lock }: ResolvedOptions): Promise<() => Promise<void>> {
  let folder: { device: number; inode: number };
  try {
    await files.mkdir(dir);
    folder = await files.stat(dir);
  } catch (error) {
    throw dataDirError(dir, error);
  }
  return await lock(dir, folder);
}

async function recover(
  options: ResolvedOptions,
): Promise<{ folder: Folder; restore: Restore | undefined; found: Recovered }> {
  const { dir, log } = options;
  const files = readingTwice(options.files);
  try {
    const folder = await surveyFolder(files, dir, log);
    const restore = await findRestore(options, folder);
    return { folder, restore, found: await new Recovery(files, dir, log, folder).run() };
  } catch (error) {
    if (error instanceof TidegateError || errnoOf(error) === "") throw error;
    throw dataDirError(dir, error);
  }
}

function beginning(
  folder: Folder,
  found: Recovered,
): { position: number; prevEnd: number; group: number; segment: number } {
  const segment = Math.max(folder.segmentNumberMax + 1, folder.checkpoint?.nextSegment ?? 1);
  return { position: found.nextPosition, prevEnd: found.end, group: found.nextGroup, segment };
}
