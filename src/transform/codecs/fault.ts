import { TidegateError } from "../../base/errors.ts";

/** The device's bytes, or a value to be encoded, do not match. The text names codec, field and offset but never holds payload text: it is logged. */
export function decodeFault(message: string): TidegateError {
  return new TidegateError("TG_DECODE", message);
}

/** The definition of a codec, source or route is wrong. The config schema finds most of it earlier, with a line number. */
export function configFault(message: string, cause?: unknown): TidegateError {
  return new TidegateError("TG_CONFIG", message, { cause });
}
