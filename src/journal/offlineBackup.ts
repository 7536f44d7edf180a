/** A backup of a folder that no gateway has open: locked meanwhile, every file as it lies there. */
import { join } from "node:path";
import type { BackupInfo, BackupRequest } from "../base/contracts.ts";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import { type BackupItem, type BackupPlace, BackupWriter } from "./backup.ts";
import { manifestName, stagedManifestName } from "./backupManifest.ts";
import { surveyFolder } from "./folder.ts";
import { type FolderLock, lockFolder } from "./folderLock.ts";
import { checkpointNamePattern, segmentNamePattern } from "./format.ts";
import { Recovery } from "./recovery.ts";

/**
 * @throws TidegateError TG_DATA_DIR (not there, no store, in use, not readable), TG_STORE_FOREIGN, TG_BACKUP. The data folder is not changed.
 */
export async function backupStopped(
  place: BackupPlace,
  request: BackupRequest,
  lock: FolderLock = lockFolder,
): Promise<BackupInfo> {
  const { dir, files, log } = place;
  const refuse = (why: string, cause?: unknown): TidegateError =>
    new TidegateError("TG_DATA_DIR", `data folder ${dir}: ${why}`, { cause });
  let names: string[];
  try {
    names = await files.readdir(dir);
  } catch (error) {
    const why: Record<string, string> = { ENOENT: "it does not exist", EACCES: "this user may not read it" };
    throw refuse(`${why[errnoOf(error)] ?? messageOf(error)} (gateway.dataDir; which config? -c FILE)`, error);
  }
  if (names.includes(manifestName) || names.includes(stagedManifestName))
    throw refuse("it is a backup itself that no gateway was started from yet: copy it as it is");
  const unlock = await lock(dir, await files.stat(dir));
  try {
    const folder = await surveyFolder(files, dir, log);
    if (folder.storeId === undefined) throw refuse("there is nothing in it yet");
    const found = await new Recovery(files, dir, log, folder).run(); // only reads
    const items: BackupItem[] = [];
    for (const name of names.sort()) {
      if (!segmentNamePattern.test(name) && !checkpointNamePattern.test(name)) continue;
      const path = join(dir, name);
      items.push({ name, bytes: (await files.stat(path)).size, sealed: true });
      // After a kill -9 it may be in the page cache only, and a link would not be any safer.
      const file = await files.open(path, "read");
      await file.datasync().finally(() => file.close());
    }
    const { epoch } = folder;
    const writer = new BackupWriter(place, request);
    await writer.begin();
    const store = folder.storeId.toString("hex");
    return await writer.write({ items, store, epoch, group: found.nextGroup - 2, position: found.end });
  } finally {
    await unlock();
  }
}
