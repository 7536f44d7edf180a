/** What a refusal of the disk means for people, and what they can do about it. */
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";

/** The disk, or our share of it, is full. */
export const isNoSpace = (error: unknown): boolean => ["ENOSPC", "EDQUOT", "EFBIG"].includes(errnoOf(error));

const remedies: Readonly<Record<string, string>> = {
  EIO: "the disk reports an input/output error: look at `dmesg`, check the card, cable and power, replace the medium if it goes on, then restart tidegate",
  EROFS:
    "the file system is mounted read-only, which the kernel does after errors: look at `dmesg`, run fsck, mount it read-write, then restart tidegate",
  EACCES: "this user may not write there: `chown` the data folder to the user that tidegate runs as, then restart it",
  EPERM:
    "this user may not write there: check owner and attributes (`lsattr`) of the data folder, then restart tidegate",
  EMFILE: "too many files are open: raise LimitNOFILE in the unit file (or `ulimit -n`), then restart tidegate",
  ENFILE: "the system has no file handles left: raise fs.file-max, or end what holds so many, then restart tidegate",
  ENOENT: "the data folder is gone: has its disk been unmounted? Mount it again, then restart tidegate",
  ENOSPC: "the disk is full: make room on it, then restart tidegate",
  EDQUOT: "the disk quota of this user is used up: raise it or make room, then restart tidegate",
};

/** TG_STORE_FAILED: the journal takes no more writes in this run. */
export function storeFailure(dir: string, cause: unknown): TidegateError {
  const remedy = remedies[errnoOf(cause)] ?? "look at `dmesg` and the disk, then restart tidegate";
  const text = `the disk refused to write to ${dir} (${messageOf(cause)}): ${remedy}. Durable publishes are refused until then`;
  return new TidegateError("TG_STORE_FAILED", text, { cause });
}
