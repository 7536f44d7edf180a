/** Messages and dead letters as the API shows them. */
import type { PeekedMessage } from "../base/contracts.ts";
import type { Letter, LetterSummary } from "../base/deadLetters.ts";
import type { Message } from "../base/message.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** RFC 3339; a clock that was far off must not keep the rest from being shown. */
export function timeText(wallMs: number): string {
  const date = new Date(wallMs);
  return Number.isNaN(date.getTime()) ? new Date(0).toISOString() : date.toISOString();
}

export function summaryJson(letter: LetterSummary): object {
  const { id, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes } = letter;
  const where =
    from.kind === "uplink"
      ? { uplink: from.name, priority: from.priority, seq: from.seq, rule: ruleJson(from.rule) }
      : from.kind === "route"
        ? { route: from.name }
        : {};
  const times = { taken: timeText(takenMs), first: timeText(firstMs), last: timeText(lastMs) };
  return { id, ...where, code, reason: text, attempts, ...times, topic, source, bytes };
}

export function letterJson(letter: Letter): object {
  return { ...summaryJson(letter), ...messageJson(letter.message) };
}

export function peekedJson(peeked: PeekedMessage): object {
  const { seq, priority, wallMs, inFlight, message } = peeked;
  const { topic, source, payload } = message;
  return {
    seq,
    priority,
    inFlight,
    taken: timeText(wallMs),
    topic,
    source,
    bytes: payload.length,
    ...messageJson(message),
  };
}

function messageJson({ qos, retain, properties, payload }: Message): object {
  const { correlationData, ...others } = properties ?? {};
  const shown =
    correlationData === undefined
      ? others
      : { ...others, correlationData: { encoding: "base64", data: Buffer.from(correlationData).toString("base64") } };
  return { qos, retain, properties: shown, payload: payloadJson(payload) };
}

function payloadJson(payload: Uint8Array): { encoding: "utf8" | "base64"; data: string } {
  try {
    return { encoding: "utf8", data: utf8.decode(payload) };
  } catch {
    return { encoding: "base64", data: Buffer.from(payload).toString("base64") };
  }
}

/** The forward rule that was in force; as text when it is none of ours. */
function ruleJson(rule: string): unknown {
  try {
    return JSON.parse(rule);
  } catch {
    return rule;
  }
}
