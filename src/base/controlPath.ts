/** Where a running gateway answers its own machine's command line: a unix socket in the data folder. */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { TidegateError } from "./errors.ts";

export const controlName = "control.sock";
/** What a unix socket's address has room for. */
const addressBytesMax = 107;

/**
 * A name for the socket that fits into its address: where its path is too long, through the open folder (Linux). Valid until closed.
 * @throws TidegateError TG_LISTEN when no name fits; errno errors of the folder
 */
export async function controlAddress(dir: string): Promise<{ path: string; close(): Promise<void> }> {
  const path = join(dir, controlName);
  if (Buffer.byteLength(path) <= addressBytesMax) return { path, close: async () => undefined };
  if (process.platform !== "linux")
    throw new TidegateError("TG_LISTEN", `${path}: longer than a socket's name may be (${addressBytesMax} bytes)`);
  const folder: FileHandle = await open(dir, "r");
  return { path: `/proc/self/fd/${folder.fd}/${controlName}`, close: () => folder.close() };
}
