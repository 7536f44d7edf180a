import { resolve } from "node:path";
import { systemClock } from "../base/clock.ts";
import type { BackupInfo } from "../base/contracts.ts";
import { messageOf, TidegateError } from "../base/errors.ts";
import { silentLog } from "../base/log.ts";
import { type Config, formatProblem, loadConfig } from "../config/load.ts";
import { backupOffline } from "../gateway.ts";
import { configFile } from "./check.ts";
import { ask, isRunning } from "./controlClient.ts";
import { bytesText } from "./texts.ts";
import { version } from "./version.ts";

export interface Io {
  out(line: string): void;
  err(line: string): void;
}

/** `tidegate backup DIR`: by the gateway that runs, else of the folder as it lies there. Exit code 0, 1 (not made), 2 (wrong config). */
export async function backup(dir: string, options: { config?: string }, io: Io): Promise<number> {
  const config = await configOf(options, io);
  if (config === undefined) return 2;
  const target = resolve(dir);
  try {
    const info = (await isRunning(config.gateway.dataDir))
      ? await byGateway(config.gateway.dataDir, target)
      : await bySelf(config, target);
    const links = info.linkedBytes > 0 ? `, ${bytesText(info.linkedBytes)} of them hard links` : "";
    io.out(`backup of ${config.gateway.id} in ${info.dir}: ${info.files} files, ${bytesText(info.bytes)}${links}`);
    if (info.unreadableBytes > 0) {
      const lost = bytesText(info.unreadableBytes);
      io.err(`warning: the disk could not read ${lost} of it: zeros there. What else it holds can be restored`);
    }
    return 0;
  } catch (error) {
    io.err(`tidegate: ${messageOf(error)}`);
    return 1;
  }
}

/** Undefined: it is wrong, and that was said. What is not yet available in it does not matter to somebody who only asks. */
export async function configOf(options: { config?: string }, io: Io): Promise<Config | undefined> {
  const loaded = await loadConfig({ path: configFile(options) });
  if (loaded.ok) return loaded.config;
  for (const problem of loaded.problems) io.err(formatProblem(problem));
  return undefined;
}

async function byGateway(dataDir: string, dir: string): Promise<BackupInfo> {
  const { status, body } = await ask(dataDir, { method: "POST", path: "/api/v1/backup", body: { dir } }).catch(
    (error: unknown) => {
      const why = `the gateway went away while it made the backup (${messageOf(error)}): ${dir} is of no use`;
      throw new TidegateError("TG_BACKUP", why, { cause: error });
    },
  );
  if (status === 200) return body as BackupInfo;
  const { error } = body as { error?: { message?: string } };
  throw new TidegateError("TG_BACKUP", error?.message ?? `the gateway answered with status ${status}`);
}

async function bySelf(config: Config, dir: string): Promise<BackupInfo> {
  const request = { dir, gateway: config.gateway.id, version };
  try {
    return await backupOffline(config, request, { log: silentLog, clock: systemClock });
  } catch (error) {
    if (!(error instanceof TidegateError) || !error.message.includes("in use by another")) throw error;
    throw new TidegateError(
      "TG_DATA_DIR",
      `a gateway has the data folder ${config.gateway.dataDir} open, but does not answer on control.sock there (is it just starting or stopping? its log says when control.sock is off): try again, or stop it first`,
      { cause: error },
    );
  }
}
