import { readFileSync } from "node:fs";
import { join } from "node:path";
import { decodePacket } from "../../../src/wire/mqtt/decode.ts";
import { FrameScanner } from "../../../src/wire/mqtt/frameScanner.ts";
import type { Packet, ProtocolVersion } from "../../../src/wire/mqtt/packet.ts";

/** One row of valid.json or refused.json; byte arrays in `packet` are written `{ "hex": "..." }`. */
export interface Vector {
  name: string;
  clause: string;
  /** Null: the first packet of a connection. */
  version: ProtocolVersion | null;
  from: "client" | "server";
  hex: string;
  packet?: Packet;
  /** Reason code with which it is refused. */
  error?: number;
  /** False: legal, but not the form that we write. */
  canonical?: boolean;
}

/** Small, so that the vectors can name packets that are too large. */
export const vectorPacketMax = 65_536;

export function loadVectors(file: "valid.json" | "refused.json"): Vector[] {
  const text = readFileSync(join(import.meta.dirname, file), "utf8");
  return JSON.parse(text, (_key, value: unknown) => {
    const hex = (value as { hex?: unknown } | null)?.hex;
    const isBytes = typeof hex === "string" && Object.keys(value as object).length === 1;
    return isBytes ? Buffer.from(hex, "hex") : value;
  }) as Vector[];
}

/** All packets of a stream that comes in these chunks. The chunks are overwritten afterwards, as a socket that reuses its buffer would. */
export function readAll(
  chunks: Iterable<Uint8Array>,
  version: ProtocolVersion | undefined,
  from: "client" | "server",
  scanner = new FrameScanner(vectorPacketMax),
): Packet[] {
  const packets: Packet[] = [];
  for (const bytes of chunks) {
    const chunk = Buffer.from(bytes);
    scanner.push(chunk);
    while (scanner.next()) {
      const { buffer, first, body, end } = scanner;
      packets.push(ownBytes(decodePacket(buffer, first, body, end, version, from)));
    }
    chunk.fill(0xee);
  }
  return packets;
}

export function inSingleBytes(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (byte) => Uint8Array.of(byte));
}

/** A deep copy whose byte arrays are Buffers of their own, so that packets can be compared. */
export function ownBytes<T>(value: T): T {
  if (value instanceof Uint8Array) return Buffer.from(value) as unknown as T;
  if (Array.isArray(value)) return value.map(ownBytes) as unknown as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, ownBytes(inner)])) as T;
}
