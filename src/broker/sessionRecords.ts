import type { Qos } from "../base/message.ts";
import type { SubscriptionOptions } from "./session.ts";

/** What the store keeps of a durable session beside its subscriptions and references. */
export interface SessionRecord {
  /** Infinity: never. */
  readonly expiryMs: number;
  /** Store clock; undefined: it was connected when this was written. */
  readonly disconnectedAtMs: number | undefined;
  /** Newest ordinal sent when this was written. */
  readonly sentUpTo: number;
  /** Undefined: the anonymous one. */
  readonly user: string | undefined;
}

/** JSON, because there are few, they are small, and a later version may add to them. */
export function encodeSession(record: SessionRecord): Uint8Array {
  return Buffer.from(
    JSON.stringify({
      expiryMs: Number.isFinite(record.expiryMs) ? record.expiryMs : null,
      disconnectedAtMs: record.disconnectedAtMs ?? null,
      sentUpTo: record.sentUpTo,
      ...(record.user === undefined ? {} : { user: record.user }),
    }),
  );
}

/** Undefined when the bytes are none of ours. */
export function decodeSession(bytes: Uint8Array): SessionRecord | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString());
    if (typeof value !== "object" || value === null) return undefined;
    const { expiryMs, disconnectedAtMs, sentUpTo, user } = value as Record<string, unknown>;
    return {
      expiryMs: typeof expiryMs === "number" ? expiryMs : Number.POSITIVE_INFINITY,
      disconnectedAtMs: typeof disconnectedAtMs === "number" ? disconnectedAtMs : undefined,
      sentUpTo: typeof sentUpTo === "number" ? sentUpTo : 0,
      user: typeof user === "string" ? user : undefined,
    };
  } catch {
    return undefined;
  }
}

/** options byte (qos | noLocal 4 | retainAsPublished 8), then the identifier, big-endian. */
export function encodeSubscription(options: SubscriptionOptions): Uint8Array {
  const bytes = Buffer.alloc(5);
  bytes[0] = options.qos | (options.noLocal ? 4 : 0) | (options.retainAsPublished ? 8 : 0);
  bytes.writeUInt32BE(options.id, 1);
  return bytes;
}

export function decodeSubscription(value: Uint8Array): SubscriptionOptions | undefined {
  const bytes = Buffer.from(value);
  const flags = bytes[0] ?? 3;
  if (bytes.length !== 5 || (flags & 3) === 3) return undefined;
  return {
    qos: (flags & 3) as Qos,
    noLocal: (flags & 4) !== 0,
    retainAsPublished: (flags & 8) !== 0,
    id: bytes.readUInt32BE(1),
  };
}
