/**
 * What recovery counts may be in the page cache only (kill -9): it goes to the disk before anybody is told of it, or a power cut could still take
 * back what an uplink has already sent.
 *
 * A sync alone is not enough. After one that failed, the kernel holds pages that it calls clean and that never reached the disk: the next sync says
 * that all is well. So what nothing proves to have been synced is written once more, the same bytes in their place, which makes its pages dirty again.
 */
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import type { Folder } from "./folder.ts";
import { writeAll } from "./groupBytes.ts";
import type { Stretch } from "./recovery.ts";

const gulpBytes = 256 * 1024;

interface Place {
  readonly dir: string;
  readonly files: Files;
  readonly log: Log;
}

/** Never rejects: on a disk that takes no writes the store opens too, and says so. */
export async function settleTail({ dir, files, log }: Place, folder: Folder, unproven: Stretch | undefined) {
  try {
    for (const { name } of folder.segments.slice(-2)) {
      const again = unproven?.name === name && unproven.to > unproven.from;
      const file = await files.open(join(dir, name), again ? "write" : "read");
      try {
        if (again) await writeAgain(file, unproven);
        await file.datasync();
      } finally {
        await file.close();
      }
    }
    await files.syncDir(dir);
  } catch (error) {
    log.error({ error: messageOf(error) }, "journal: what was recovered could not be synced");
  }
}

/** @throws errno errors */
async function writeAgain(file: OpenFile, { from, to }: Stretch): Promise<void> {
  const gulp = Buffer.allocUnsafe(Math.min(gulpBytes, to - from));
  for (let at = from; at < to; ) {
    const count = await file.read(gulp.subarray(0, Math.min(gulp.length, to - at)), at);
    if (count === 0) return;
    at += await writeAll(file, [gulp.subarray(0, count)], at);
  }
}
