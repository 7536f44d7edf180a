/**
 * A dead letter as a MESSAGE of the journal: the message as it was, and one user property behind its own with what is known of its failure. So an
 * older version reads it as a message, and no record of its own is needed.
 */
import type { StoredMessage } from "../base/contracts.ts";
import type { Letter, LetterOrigin, LetterReason } from "../base/deadLetters.ts";
import type { Message, MessageProperties } from "../base/message.ts";

/** U+0000 can be in no user property that came by MQTT [MQTT-1.5.4-2]. */
const propertyName = "\u0000tidegate-letter";
const textMax = 300;

export interface LetterFacts extends LetterReason {
  readonly from: LetterOrigin;
  readonly attempts: number;
  readonly firstMs: number;
  readonly lastMs: number;
  /** Store clock, ms, when the gateway took the message: its message expiry counts from there. */
  readonly acceptedAtMs: number;
}

/** What the message had of its own: nothing, properties without user properties, or both. */
const had = { nothing: 0, properties: 1, userProperties: 2 } as const;

/** The message to store. */
export function sealLetter(message: Message, facts: LetterFacts): Message {
  const { properties } = message;
  const pairs = properties?.userProperties;
  const own = properties === undefined ? had.nothing : pairs === undefined ? had.properties : had.userProperties;
  const { from, code, text, attempts, firstMs, lastMs, acceptedAtMs } = facts;
  const json = JSON.stringify({
    ...{
      from,
      code: code.slice(0, textMax),
      text: text.slice(0, textMax),
      attempts,
      firstMs,
      lastMs,
      acceptedAtMs,
      own,
    },
  });
  return { ...message, properties: { ...properties, userProperties: [...(pairs ?? []), [propertyName, json]] } };
}

/** @returns the letter, and store clock ms when its message was accepted. What cannot be read is shown as far as it goes. */
export function openLetter(
  id: number,
  { message, wallMs, acceptedAtMs }: StoredMessage,
): Letter & { acceptedAtMs: number } {
  const sealed = message.properties?.userProperties?.at(-1);
  const json = sealed?.[0] === propertyName ? parse(sealed[1]) : undefined;
  const number = (name: string, otherwise: number): number => {
    const value = json?.[name];
    return typeof value === "number" && Number.isFinite(value) ? value : otherwise;
  };
  const text = (name: string, otherwise: string): string => {
    const value = json?.[name];
    return typeof value === "string" ? value : otherwise;
  };
  return {
    id,
    from: originOf(json?.["from"]),
    code: text("code", "unreadable"),
    text: text("text", "what is known of this letter cannot be read"),
    attempts: number("attempts", 0),
    takenMs: wallMs,
    firstMs: number("firstMs", wallMs),
    lastMs: number("lastMs", wallMs),
    topic: message.topic,
    source: message.source,
    bytes: message.payload.length,
    message: json === undefined ? message : withoutSeal(message, number("own", had.userProperties)),
    acceptedAtMs: number("acceptedAtMs", acceptedAtMs),
  };
}

function withoutSeal(message: Message, own: number): Message {
  const { topic, payload, qos, retain, source } = message;
  if (own === had.nothing) return { topic, payload, qos, retain, source };
  const properties: MessageProperties = { ...message.properties };
  if (own === had.properties) delete properties.userProperties;
  else properties.userProperties = properties.userProperties?.slice(0, -1) ?? [];
  return { topic, payload, qos, retain, source, properties };
}

function originOf(value: unknown): LetterOrigin {
  const { kind, name, rule, priority, seq } = (value ?? {}) as Record<string, unknown>;
  if (typeof name !== "string") return { kind: "unknown", name: "" };
  if (kind === "route") return { kind, name };
  if (kind === "uplink" && typeof rule === "string" && typeof priority === "number" && typeof seq === "number")
    return { kind, name, rule, priority, seq };
  return { kind: "unknown", name: "" };
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
