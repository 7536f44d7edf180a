import { type Logger, levels, pino, stdSerializers } from "pino";
import type { Log, LogFields } from "../base/log.ts";
import { escapedJson } from "./texts.ts";

export interface LeveledLog extends Log {
  /** Of this log and all its children, at once. */
  setLevel(level: string): void;
  /** An info line that is written at any level, `silent` too: others wait for it (CONTRACT: `ready`). */
  always(fields: LogFields, message: string): void;
}

type Level = "debug" | "info" | "warn" | "error";

/** JSON lines on stdout. `level` as in the config's gateway.logLevel. */
export function createLog(level: string): LeveledLog {
  // pino's own children keep the level that they were made with, so all of them pass everything and this decides.
  const least = { value: severity(level) };
  const setLevel = (next: string): void => {
    least.value = severity(next);
  };
  const logger = pino({
    level: "debug",
    base: null, // pid and host name are journald's business
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    serializers: { error: stdSerializers.err }, // an Error under a name that pino does not know would be written as {}
    formatters: { level: (label) => ({ level: label }) },
    hooks: { streamWrite: escapedJson }, // client ids and topics may have in them what a terminal obeys
  });
  return { ...wrap(logger, least), setLevel, always: (fields, message) => logger.info(fields, message) };
}

const severity = (level: string): number => levels.values[level] ?? Number.POSITIVE_INFINITY; // silent

function wrap(logger: Logger, least: { readonly value: number }): Log {
  const at = (level: Level) => {
    const value = severity(level);
    return (fields: LogFields, message: string): void => {
      if (value >= least.value) logger[level](fields, message);
    };
  };
  return {
    ...{ debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") },
    child: (fields) => wrap(logger.child(fields), least),
  };
}
