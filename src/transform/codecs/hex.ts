import type { Codec } from "../../base/contracts.ts";
import { decodeFault } from "./fault.ts";

export function hexOf(payload: Uint8Array): string {
  return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString("hex");
}

/** Pairs of hex digits; blanks and colons between them are allowed. @throws TidegateError TG_DECODE */
export function bytesOfHex(value: unknown, where: string): Buffer {
  if (typeof value !== "string") throw decodeFault(`${where}: wants a string of hex digits`);
  const digits = value.replace(/[\s:]/g, "");
  if (digits.length % 2 !== 0 || /[^0-9a-fA-F]/.test(digits)) throw decodeFault(`${where}: wants pairs of hex digits`);
  return Buffer.from(digits, "hex");
}

/** Any bytes as a string of lower-case hex digits, for what nobody has described yet. */
export class HexCodec implements Codec {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  decode(payload: Uint8Array): string {
    return hexOf(payload);
  }

  encode(value: unknown): Uint8Array {
    return bytesOfHex(value, this.name);
  }
}
