import { isUtf8 } from "node:buffer";
import { decodeFault } from "./fault.ts";

/** @throws TidegateError TG_DECODE for what is not UTF-8: a replacement character would hide that bytes were lost. */
export function utf8Text(payload: Uint8Array, where: string): string {
  if (!isUtf8(payload)) throw decodeFault(`${where}: not valid UTF-8`);
  return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString("utf8");
}

/** @throws TidegateError TG_DECODE for a lone surrogate, which UTF-8 cannot carry. */
export function utf8Bytes(text: string, where: string): Buffer {
  if (/\p{Surrogate}/u.test(text)) throw decodeFault(`${where}: text with a lone surrogate`);
  return Buffer.from(text, "utf8");
}
