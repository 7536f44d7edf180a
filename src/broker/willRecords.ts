import type { MessageProperties, Qos } from "../base/message.ts";
import type { Will } from "../wire/mqtt/packet.ts";

/** What the store keeps of a client's will. */
export interface WillRecord {
  readonly will: Will;
  /** From the end of its connection. */
  readonly delayMs: number;
  /** Store clock; undefined: the client was connected when this was written. */
  readonly dueAtMs: number | undefined;
  /** Whose it is, for the access rules; undefined: the anonymous one's. */
  readonly user: string | undefined;
}

/** JSON with bytes in base64, because there are few, they are small, and a later version may add to them. */
export function encodeWill({ will, delayMs, dueAtMs, user }: WillRecord): Uint8Array {
  const { topic, payload, qos, retain } = will;
  const { correlationData, ...properties } = will.properties ?? {};
  return Buffer.from(
    JSON.stringify({
      ...{ topic, payload: base64(payload), qos, retain, properties, delayMs, dueAtMs: dueAtMs ?? null },
      correlationData: correlationData === undefined ? null : base64(correlationData),
      ...(user === undefined ? {} : { user }),
    }),
  );
}

/** Undefined when the bytes are none of ours. */
export function decodeWill(bytes: Uint8Array): WillRecord | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString());
    if (typeof value !== "object" || value === null) return undefined;
    const { topic, payload, qos, retain, delayMs, dueAtMs, properties, correlationData, user } = value as Record<
      string,
      unknown
    >;
    if (typeof topic !== "string" || typeof payload !== "string" || (qos !== 0 && qos !== 1 && qos !== 2)) {
      return undefined;
    }
    const all: MessageProperties = { ...(properties as MessageProperties) }; // what encodeWill wrote; the store has a checksum on it
    if (typeof correlationData === "string") all.correlationData = Buffer.from(correlationData, "base64");
    const will: Will = { topic, payload: Buffer.from(payload, "base64"), qos: qos as Qos, retain: retain === true };
    if (Object.keys(all).length > 0) will.properties = all;
    return {
      will,
      delayMs: typeof delayMs === "number" ? delayMs : 0,
      dueAtMs: typeof dueAtMs === "number" ? dueAtMs : undefined,
      user: typeof user === "string" ? user : undefined,
    };
  } catch {
    return undefined;
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
