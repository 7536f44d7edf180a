import type { Codec } from "../../base/contracts.ts";
import { decodeFault } from "./fault.ts";
import { utf8Bytes, utf8Text } from "./utf8.ts";

/** UTF-8 text as a JSON string, unchanged. Encodes strings; numbers and booleans as JSON would write them. */
export class TextCodec implements Codec {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  decode(payload: Uint8Array): string {
    return utf8Text(payload, this.name);
  }

  encode(value: unknown): Uint8Array {
    if (typeof value === "string") return utf8Bytes(value, this.name);
    if (typeof value === "boolean" || Number.isFinite(value)) return Buffer.from(String(value));
    throw decodeFault(`${this.name}: wants a string, number or boolean`);
  }
}
