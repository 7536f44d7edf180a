/**
 * One gateway per folder. The lock is an abstract unix socket named after the folder's device and inode: the kernel frees it however the process
 * ends, while a lock file cannot be trusted after a power cut. Network namespaces (containers) do not see each other's.
 */
import { createServer } from "node:net";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";

export type FolderLock = (dir: string, folder: { device: number; inode: number }) => Promise<() => Promise<void>>;

/** Resolves to the release. @throws TidegateError TG_DATA_DIR when another gateway has the folder. */
export const lockFolder: FolderLock = (dir, { device, inode }) =>
  new Promise((resolve, reject) => {
    if (process.platform !== "linux") {
      resolve(() => Promise.resolve()); // no abstract sockets: the operator's care
      return;
    }
    const server = createServer((socket) => socket.destroy());
    server.unref();
    server.once("error", (error) => {
      const why = errnoOf(error) === "EADDRINUSE" ? "in use by another tidegate: stop it first" : messageOf(error);
      reject(new TidegateError("TG_DATA_DIR", `data folder ${dir}: ${why}`, { cause: error }));
    });
    server.listen(`\0tidegate-${device}-${inode}`, () => {
      resolve(() => new Promise((closed) => server.close(() => closed())));
    });
  });
