import { type Logger, pino, stdSerializers } from "pino";
import type { Log } from "../base/log.ts";

/** JSON lines on stdout. `level` as in the config's gateway.logLevel. */
export function createLog(level: string): Log {
  return wrap(
    pino({
      level,
      base: null, // pid and host name are journald's business
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      serializers: { error: stdSerializers.err }, // an Error under a name that pino does not know would be written as {}
      formatters: { level: (label) => ({ level: label }) },
    }),
  );
}

function wrap(logger: Logger): Log {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields) => wrap(logger.child(fields)),
  };
}
