/**
 * Every error the gateway raises on purpose, as a closed list. The text after each code says who can mend it.
 * A code is a promise: logs, /health and tests name it, so it is never reused for something else.
 */
export const errorCodes = {
  TG_CONFIG: "the operator: the config file is wrong; the message names line and column",
  TG_USAGE: "the operator: the command line is wrong",
  TG_LISTEN: "the operator: an address could not be opened (in use, no permission, not ours)",
  TG_DATA_DIR: "the operator: the data folder cannot be created, read, written or locked",
  TG_STORE_FOREIGN: "the operator: the data folder holds files that this version must not touch",
  TG_STORE_FULL: "the operator: the store reached storage.maxBytes or the disk's reserve",
  TG_STORE_FAILED: "the operator: the disk refused a write or a sync twice; durable publishes are refused",
  TG_BACKUP: "the operator: the backup could not be made: its folder, its disk, or another one is being made",
  TG_BACKUP_BROKEN: "the operator: the data folder is a backup that is not whole; nothing was changed",
  TG_STORE_READ: "the operator: stored messages cannot be read now (no descriptors, no memory); it is tried again",
  TG_SOURCE: "the operator: a serial port or CoAP endpoint does not answer; the source retries",
  TG_UPLINK: "the operator: the cloud broker cannot be reached or refuses us; the uplink retries",
  TG_DECODE: "the device: its bytes do not match the codec; the reading is dropped and counted",
  TG_PROTOCOL: "the peer: it broke its protocol; its connection is closed",
  TG_NOT_AVAILABLE: "the operator: the config names something that this version cannot do yet",
  TG_INTERNAL: "us: please report it",
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** An error with a code of the closed list. `retriable` says whether the same call may succeed later without a change. */
export class TidegateError extends Error {
  readonly code: ErrorCode;
  readonly retriable: boolean;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; retriable?: boolean } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "TidegateError";
    this.code = code;
    this.retriable = options.retriable ?? false;
  }
}

/** What an unknown thrown value says, in one line, for logs and messages. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  return String(error);
}

/** Node's errno name (`ENOENT`, `EADDRINUSE`...), or "" where there is none. */
export function errnoOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}
