/**
 * Starting from a backup. The manifest is what makes a folder a backup; it goes once the raised epoch is on the disk:
 *
 *   verify all | recover | new segment with the raised epoch: synced, folder synced | manifest removed | messages may be sent
 *
 * A crash in between finds the manifest again, and either a segment with the raised epoch (the restore was as good as done) or none (nothing was
 * sent with it, it starts anew). So the old epoch is never used again.
 */
import { randomInt } from "node:crypto";
import { join } from "node:path";
import type { Store } from "../base/contracts.ts";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { type Manifest, manifestName, readManifest, stagedManifestName, verifyBackup } from "./backupManifest.ts";
import type { Folder } from "./folder.ts";
import { segmentName } from "./format.ts";

/** Two restores of one backup on machines without a clock must not get the same epoch. */
const epochStepMax = 1_000_000;

export interface Restore {
  readonly epoch: number;
  /** To be called once the store has begun. @throws TidegateError TG_DATA_DIR when the raised epoch did not reach the disk */
  finish(store: Store, firstGroup: number): Promise<void>;
}

interface Place {
  readonly dir: string;
  readonly files: Files;
  readonly log: Log;
  readonly clock: { wallMs(): number };
}

/**
 * Undefined: an ordinary data folder. Changes nothing, but for a manifest that outlived its restore.
 * @throws TidegateError TG_BACKUP_BROKEN, TG_STORE_FOREIGN; errno errors of the folder
 */
export async function findRestore(place: Place, folder: Folder): Promise<Restore | undefined> {
  const { dir, files, log, clock } = place;
  if (folder.storeId !== undefined && (await isRestored(place, folder))) {
    await removeManifest(place);
    return undefined;
  }
  const manifest = await readManifest(files, dir);
  if (manifest === undefined) return undefined;
  log.info({ from: manifest.gateway, takenAt: manifest.takenAt, version: manifest.version }, "journal: restoring");
  await verifyBackup(files, dir, manifest, folder.debris.map(segmentName));
  const epoch = Math.max(Math.floor(clock.wallMs()), folder.epoch + randomInt(1, epochStepMax));
  return {
    epoch,
    async finish(store, firstGroup) {
      if (store.failed !== undefined || store.durableGroup < firstGroup) {
        throw new TidegateError(
          "TG_DATA_DIR",
          `data folder ${dir}: the first start from a backup has to write to it, and the disk refuses (${store.failed?.message ?? "no space left"}). The backup is as it was`,
        );
      }
      await removeManifest(place);
      log.info({ epoch, was: manifest.epoch }, "journal: restored from a backup");
    },
  };
}

/** Whether a start from this backup got so far that its epoch is on the disk. */
async function isRestored({ dir, files }: Place, folder: Folder): Promise<boolean> {
  let manifest: Manifest | undefined;
  try {
    manifest = await readManifest(files, dir);
  } catch {
    return false; // said when it is looked at again
  }
  if (manifest === undefined || folder.storeId?.toString("hex") !== manifest.store) return false;
  const headers = [...folder.segments, ...(folder.checkpoint === undefined ? [] : [folder.checkpoint])];
  return headers.some(({ header }) => header.epoch > manifest.epoch);
}

async function removeManifest({ dir, files, log }: Place): Promise<void> {
  try {
    if ((await files.readdir(dir)).includes(stagedManifestName)) await files.unlink(join(dir, stagedManifestName));
    await files.unlink(join(dir, manifestName));
    await files.syncDir(dir);
  } catch (error) {
    // The raised epoch is on the disk: the next start sees that this was restored.
    log.error({ error: messageOf(error) }, "journal: the backup's manifest could not be removed");
  }
}
