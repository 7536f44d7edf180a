/** A read that fails with EIO is tried once more: a passing error (a loose cable, a controller that was reset) must not count as lost records. */
import { errnoOf } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";

async function twice<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (errnoOf(error) !== "EIO") throw error;
    return await call();
  }
}

/** The same files, for whoever reads. */
export function readingTwice(files: Files): Files {
  const patient = (file: OpenFile): OpenFile => ({
    write: (buffers, position) => file.write(buffers, position),
    read: (target, position) => twice(() => file.read(target, position)),
    datasync: () => file.datasync(),
    size: () => twice(() => file.size()),
    truncate: (size) => file.truncate(size),
    close: () => file.close(),
  });
  return {
    ...files,
    open: async (path, mode) =>
      mode === "read" ? patient(await twice(() => files.open(path, mode))) : await files.open(path, mode),
  };
}
