import { systemClock } from "../base/clock.ts";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { Meter } from "../base/meter.ts";
import { formatProblem, loadConfig } from "../config/load.ts";
import { type Gateway, startGateway } from "../gateway.ts";
import { configFile } from "./check.ts";
import { createLog } from "./pinoLog.ts";
import { Reloads } from "./reloads.ts";
import { putSyncsFirst } from "./syncsFirst.ts";
import { SystemdNotifier } from "./systemd.ts";
import { version } from "./version.ts";

/** A stop that takes longer than this is ended: systemd and people wait 5 s. The journal needs no clean end. */
const stopMsMax = 4_500;
const stopSignals = ["SIGTERM", "SIGINT"];
/** After the stop, for whatever still keeps the event loop from ending. */
const exitMsMax = 250;
/** What still reads a file may take so many of these times. */
const readingLooksMax = 4;

/** `tidegate run`: until SIGTERM or SIGINT. Exit code 0 clean, 1 failure at run time, 2 wrong config. */
export async function run(options: { config?: string }): Promise<number> {
  const path = configFile(options);
  const loaded = await loadConfig({ path });
  if (!loaded.ok) {
    for (const problem of loaded.problems) console.error(formatProblem(problem));
    return 2;
  }
  // Asked for and not there yet: going on without it would be worse than saying so.
  if (loaded.unavailable.length > 0) {
    for (const problem of loaded.unavailable) console.error(formatProblem(problem));
    return 2;
  }
  const log = createLog(loaded.config.gateway.logLevel);
  for (const warning of loaded.warnings) log.warn({ at: formatProblem(warning) }, "config");
  guardProcess(log);
  const stopped = stopSignal(); // from here on, so that a signal during a long recovery stops cleanly too
  let started = false;
  const late = stopped.then(() => endLate(() => started, log));
  const reloads = new Reloads(options, path, log); // and one of SIGHUP does not end it
  let gateway: Gateway;
  try {
    gateway = await startGateway(loaded.config, { log, clock: systemClock, meter: new Meter(), version });
  } catch (error) {
    return startFailed(error, log);
  }
  started = true;
  const notifier = new SystemdNotifier(log);
  log.always({ ...gateway.addresses(), config: loaded.file ?? "defaults", version }, "ready");
  notifier.ready(`${gateway.addresses().listeners.length} listeners`);
  reloads.serve(gateway);
  void putSyncsFirst(log);
  const signal = await stopped;
  reloads.end();
  log.info({ signal }, "stopping");
  notifier.stopping();
  const code = await stop(gateway, log);
  clearTimeout(await late);
  return ending(code);
}

/** From the signal on, whatever it finds: a start takes its time where much has to be recovered, or a disk does not answer. */
function endLate(started: () => boolean, log: Log): NodeJS.Timeout {
  const end = (): void => {
    // A thread that hangs in a file cannot be ended, and the process waits for it: then the next signal ends it as if nobody listened.
    for (const signal of stopSignals) process.removeAllListeners(signal);
    if (started()) log.error({}, "stopping took too long; what is on disk is safe");
    else log.info({}, "stopped during the start; what is on disk is safe");
    process.exit(started() ? 1 : 0);
  };
  return setTimeout(end, stopMsMax).unref();
}

async function stop(gateway: Gateway, log: Log): Promise<number> {
  try {
    await gateway.stop();
    log.info({}, "stopped");
    return 0;
  } catch (error) {
    log.error({ err: describe(error) }, "stopping was not clean; what is on disk is safe");
    return 1;
  }
}

/** A question of Node's resolver to a name server that does not answer, for one, would keep the process. */
function ending(code: number, looks = 0): number {
  setTimeout(() => {
    if (!isReading()) process.exit(code);
    if (looks >= readingLooksMax) endNow();
    ending(code, looks + 1);
  }, exitMsMax).unref();
  return code;
}

/** A file that does not answer holds a thread, for which `process.exit` would wait for ever (see `endLate`). */
const isReading = (): boolean => process.getActiveResourcesInfo().some((name) => name.startsWith("FSReq"));

/** As SIGTERM ends a program that does not listen to it, which systemd takes for a clean end, too. */
function endNow(): void {
  for (const signal of stopSignals) process.removeAllListeners(signal);
  process.kill(process.pid, "SIGTERM");
}

function startFailed(error: unknown, log: Log): number {
  const code = error instanceof TidegateError ? error.code : "TG_INTERNAL";
  log.error({ code, err: describe(error) }, "start failed");
  console.error(`tidegate: ${messageOf(error)}`);
  return ending(code === "TG_CONFIG" || code === "TG_NOT_AVAILABLE" ? 2 : 1);
}

function stopSignal(): Promise<string> {
  // Not once: a second signal while stopping would end the process in the middle of it.
  return new Promise((resolve) => {
    for (const signal of stopSignals) process.on(signal, () => resolve(signal));
  });
}

/**
 * A fault of ours that nobody caught: the state in memory can't be trusted any more, but all that was acknowledged is on disk, so the honest
 * thing is to say it and to be started again.
 */
function guardProcess(log: Log): void {
  const die = (error: unknown): void => {
    log.error({ code: "TG_INTERNAL", err: describe(error) }, "internal fault: please report it");
    process.exit(1);
  };
  process.on("uncaughtException", die);
  process.on("unhandledRejection", die);
  // A log reader that went away (journald restarting, `| head`) must not end the gateway.
  process.stdout.on("error", () => {});
  process.stderr.on("error", () => {});
}

function describe(error: unknown): unknown {
  if (!(error instanceof Error)) return String(error);
  return {
    message: error.message,
    stack: error.stack,
    ...(error.cause === undefined ? {} : { cause: messageOf(error.cause) }),
  };
}
