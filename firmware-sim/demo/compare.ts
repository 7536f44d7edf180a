/**
 * Holds what the devices saw acknowledged against what the cloud received. Pure: lists in, findings out.
 *
 * Order, exactly:
 * - resending devices (serial): a resent frame legally arrives later, so the order of acceptance is the order of the ACKs. Each ACK
 *   stands for one copy that the gateway took, and copies leave in the order in which they were taken; so the list of ACKs must be
 *   contained, in its order, in the list of all copies that the cloud received (a subsequence of it).
 * - in-order devices (CoAP post, MQTT): number n + 1 is accepted after n, so the first arrivals of the numbers must rise.
 * - observations: the first arrivals must rise; some may never have been taken, that is no loss.
 */
import type { CloudMessage } from "../cloud.ts";

/** One forwarded message, out of its JSON envelope. */
export interface Arrival {
  /** gw, epoch and seq: the message's identity. */
  readonly id: string;
  /** The topic inside the gateway. */
  readonly topic: string;
  readonly late: boolean;
  readonly data: unknown;
}

export interface DeviceReport {
  readonly device: string;
  /** What "accepted" means for it. */
  readonly seenBy: string;
  readonly accepted: number;
  /** Different readings of it in the cloud; may be more than accepted, when an acknowledgement got lost. */
  readonly inCloud: number;
  /** Accepted readings that the cloud has not. */
  readonly missing: number;
  /** Which ones, where that is known. */
  readonly missingNumbers: readonly number[];
  /** Copies with an identity that had arrived before: the uplink sent them twice. */
  readonly sentTwice: number;
  /** Further identities of a reading that had arrived before: the device sent it twice, and the gateway took it twice. */
  readonly takenTwice: number;
  /** "ok", or the first thing that is out of order. */
  readonly order: string;
  /** Readings whose values are not the device's. */
  readonly wrong: readonly number[];
}

/** What is wrong with the message, as text, or the message. */
export function openEnvelope(message: CloudMessage, gatewayId: string): Arrival | string {
  let envelope: Record<string, unknown>;
  try {
    envelope = JSON.parse(message.payload.toString("utf8")) as Record<string, unknown>;
  } catch {
    return `${message.topic}: the payload is not JSON`;
  }
  const { gw, epoch, seq, pri, ts, late, topic, data } = envelope ?? {};
  if (gw !== gatewayId) return `${message.topic}: gw is ${JSON.stringify(gw)}, not ${gatewayId}`;
  if (typeof epoch !== "number" || typeof seq !== "number") return `${message.topic}: epoch or seq is no number`;
  if (typeof pri !== "number" || typeof ts !== "string" || Number.isNaN(Date.parse(ts))) {
    return `${message.topic}: pri or ts is missing`;
  }
  if (typeof topic !== "string" || message.topic !== `gw/${gatewayId}/${topic}`) {
    return `${message.topic}: topic in the envelope is ${JSON.stringify(topic)}`;
  }
  return { id: `${gw}/${epoch}/${seq}`, topic, late: Boolean(late), data };
}

/** A reading in the cloud: its number, and whether its values are what the device measured. */
export interface NumberedArrival {
  readonly id: string;
  readonly number: number;
  readonly right: boolean;
}

/** The number, near `reference`, whose low 16 bits are `seq`. */
export function unwrapSeq(seq: number, reference: number): number {
  const ahead = (seq - reference) & 0xffff;
  return ahead < 0x8000 ? reference + ahead : reference + ahead - 0x1_0000;
}

/** The first element of `part` that does not follow in `whole`, or undefined when `part` is a subsequence of it. */
export function firstOutOfOrder(part: Iterable<number>, whole: readonly number[]): number | undefined {
  let at = 0;
  for (const number of part) {
    while (at < whole.length && whole[at] !== number) at += 1;
    if (at === whole.length) return number;
    at += 1;
  }
  return undefined;
}

/** The first number whose first arrival comes after that of a higher one, or undefined. */
export function firstFalling(numbers: Iterable<number>): number | undefined {
  const seen = new Set<number>();
  let highest = Number.NEGATIVE_INFINITY;
  for (const number of numbers) {
    if (seen.has(number)) continue;
    if (number < highest) return number;
    seen.add(number);
    highest = number;
  }
  return undefined;
}

function countCopies(
  arrivals: readonly NumberedArrival[],
): Pick<DeviceReport, "inCloud" | "sentTwice" | "takenTwice" | "wrong"> {
  const ids = new Set(arrivals.map((arrival) => arrival.id));
  const numbers = new Set(arrivals.map((arrival) => arrival.number));
  const wrong = new Set(arrivals.filter((arrival) => !arrival.right).map((arrival) => arrival.number));
  return {
    inCloud: numbers.size,
    sentTwice: arrivals.length - ids.size,
    takenTwice: ids.size - numbers.size,
    wrong: [...wrong],
  };
}

/** @param accepted numbers in the order in which the device saw them acknowledged */
export function compareDevice(
  device: { name: string; seenBy: string; order: "acks" | "rising" },
  accepted: readonly number[],
  arrivals: readonly NumberedArrival[],
): DeviceReport {
  const arrived = arrivals.map((arrival) => arrival.number);
  const inCloud = new Set(arrived);
  const missing = accepted.filter((number) => !inCloud.has(number));
  const present = accepted.filter((number) => inCloud.has(number));
  const fault = device.order === "acks" ? firstOutOfOrder(present, arrived) : firstFalling(arrived);
  return {
    device: device.name,
    seenBy: device.seenBy,
    accepted: accepted.length,
    ...countCopies(arrivals),
    missing: missing.length,
    missingNumbers: missing,
    order: fault === undefined ? "ok" : `${fault} is out of order`,
  };
}

/**
 * @param accepted observations that the gateway counted as durable, over all its lives. It may have taken a few more between the last
 *   look at its counter and a kill, so the cloud may have more, never less.
 */
export function compareObservation(
  device: string,
  accepted: number,
  arrivals: readonly NumberedArrival[],
): DeviceReport {
  const taken = new Set(arrivals.map((arrival) => arrival.id)).size;
  const fault = firstFalling(arrivals.map((arrival) => arrival.number));
  return {
    device,
    seenBy: "gateway's counter",
    accepted,
    ...countCopies(arrivals),
    inCloud: taken, // the counter counts messages, so these are compared, not their numbers
    missing: Math.max(0, accepted - taken),
    missingNumbers: [],
    order: fault === undefined ? "ok" : `${fault} is out of order`,
  };
}

/** True when nothing is missing, wrong or out of order. Duplicates are allowed: delivery is at least once. */
export function isGood(report: DeviceReport): boolean {
  return report.missing === 0 && report.wrong.length === 0 && report.order === "ok";
}

/** The reports as a table for people. */
export function tableOf(reports: readonly DeviceReport[]): string[] {
  const head = ["device", "accepted", "seen by", "in cloud", "missing", "sent twice", "taken twice", "order", "values"];
  const rows = reports.map((report) => [
    report.device,
    String(report.accepted),
    report.seenBy,
    String(report.inCloud),
    String(report.missing),
    String(report.sentTwice),
    String(report.takenTwice),
    report.order,
    report.wrong.length === 0 ? "ok" : `${report.wrong.length} wrong`,
  ]);
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join("  ")
      .trimEnd();
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)];
}
