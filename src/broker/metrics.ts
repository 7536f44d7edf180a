import type { Qos } from "../base/message.ts";
import type { Counter, Meter } from "../base/meter.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";

/** Why a message did not reach somebody. A closed list: labels never come from outside. */
export type DropReason =
  | "outbox-full"
  | "offline"
  | "queue-full"
  | "expired"
  | "too-large"
  | "sys-topic"
  | "topic-levels"
  | "denied"
  | "store-full"
  | "uplink-full"
  | "retained-full"
  | "read-failed"
  | "refused"
  | "route-loop"
  | "route-limit"
  | "session-ended"
  | "client-refused"
  | "rotten"
  | "write-failed"
  | "will-not-stored";

/** log-ins: too many at a time; owner: the client id's session is another user's. */
export type RefusedReason =
  | "max-connections"
  | "max-per-address"
  | "auth"
  | "log-ins"
  | "owner"
  | "sessions"
  | "client-id"
  | "will"
  | "timeout"
  | "proxy"
  | "tls"
  | "websocket";

export type ProtocolFault =
  | "malformed"
  | "protocol"
  | "too-large"
  | "receive-maximum"
  | "topic"
  | "keep-alive"
  | "incomplete"
  | "paused"
  | "websocket"
  | "other";

/** The broker's counters. On the hot path a counter is a field increment. */
export class BrokerMetrics {
  readonly received: readonly [Counter, Counter, Counter];
  readonly sent: readonly [Counter, Counter, Counter];
  readonly bytesReceived: Counter;
  readonly bytesSent: Counter;
  readonly connectionsAccepted: Counter;
  /** CONNECT packets. */
  readonly connects: Counter;
  /** Packets that are no PUBLISH; counted apart, so that a PUBLISH is counted once. */
  readonly othersReceived: Counter;
  readonly othersSent: Counter;
  /** Bytes of the payloads of PUBLISH packets. */
  readonly payloadReceived: Counter;
  readonly payloadSent: Counter;
  readonly sessionsExpired: Counter;
  readonly crowds: Counter;
  readonly #meter: Meter;
  readonly #dropped = new Map<DropReason, Counter>();
  readonly #faults = new Map<ProtocolFault, Counter>();
  readonly #refused = new Map<string, Counter>();
  readonly #refusedFilters = new Map<string, Counter>();

  constructor(meter: Meter) {
    this.#meter = meter;
    const byQos = (direction: string) => (qos: Qos) =>
      meter.counter("tidegate_mqtt_messages_total", "PUBLISH packets by direction and QoS", {
        direction,
        qos: String(qos),
      });
    const incoming = byQos("in");
    const outgoing = byQos("out");
    this.received = [incoming(0), incoming(1), incoming(2)];
    this.sent = [outgoing(0), outgoing(1), outgoing(2)];
    this.bytesReceived = meter.counter("tidegate_mqtt_bytes_total", "Bytes of MQTT connections", { direction: "in" });
    this.bytesSent = meter.counter("tidegate_mqtt_bytes_total", "Bytes of MQTT connections", { direction: "out" });
    const others = (direction: string) =>
      meter.counter("tidegate_mqtt_other_packets_total", "Packets that are no PUBLISH, by direction", { direction });
    this.othersReceived = others("in");
    this.othersSent = others("out");
    const payload = (direction: string) =>
      meter.counter("tidegate_mqtt_payload_bytes_total", "Bytes of PUBLISH payloads, by direction", { direction });
    this.payloadReceived = payload("in");
    this.payloadSent = payload("out");
    this.connects = meter.counter("tidegate_mqtt_connects_total", "CONNECT packets");
    this.crowds = meter.counter("tidegate_mqtt_crowds_total", "Times that publishers stood back for a slow disk");
    this.sessionsExpired = meter.counter("tidegate_mqtt_sessions_expired_total", "Sessions whose time was over");
    this.connectionsAccepted = meter.counter("tidegate_mqtt_connections_total", "Connections opened");
  }

  dropped(reason: DropReason): Counter {
    let counter = this.#dropped.get(reason);
    if (counter === undefined) {
      counter = this.#meter.counter("tidegate_mqtt_dropped_total", "Messages or copies not delivered", { reason });
      this.#dropped.set(reason, counter);
    }
    return counter;
  }

  protocolError(fault: ProtocolFault): Counter {
    let counter = this.#faults.get(fault);
    if (counter === undefined) {
      counter = this.#meter.counter("tidegate_mqtt_protocol_errors_total", "Connections closed for what they sent", {
        reason: fault,
      });
      this.#faults.set(fault, counter);
    }
    return counter;
  }

  /** Connections that were not let in. @param reason one of a few words of ours. */
  refused(reason: RefusedReason): Counter {
    let counter = this.#refused.get(reason);
    if (counter === undefined) {
      counter = this.#meter.counter("tidegate_mqtt_refused_total", "Connections not let in", { reason });
      this.#refused.set(reason, counter);
    }
    return counter;
  }

  /** Filters that were not subscribed to. @param reason levels: not a filter, or above maxTopicLevels. count: maxSubscriptions */
  refusedFilter(reason: "levels" | "count"): Counter {
    let counter = this.#refusedFilters.get(reason);
    if (counter === undefined) {
      counter = this.#meter.counter("tidegate_mqtt_filters_refused_total", "Filters not subscribed to", { reason });
      this.#refusedFilters.set(reason, counter);
    }
    return counter;
  }

  /** One PUBLISH went into an outbox. @param bytes of its payload */
  countSent(qos: Qos, bytes: number): void {
    this.sent[qos].value += 1;
    this.payloadSent.value += bytes;
  }

  get droppedAll(): number {
    let all = 0;
    for (const { value } of this.#dropped.values()) all += value;
    return all;
  }

  /** @param result known: remembered, not hashed. busy: refused unseen, too many at a time */
  logIns(result: "right" | "known" | "wrong" | "busy"): Counter {
    return this.#meter.counter("tidegate_mqtt_log_ins_total", "Log-ins with a password or its proof", { result });
  }

  droppedByReason(): Record<string, number> {
    const all: Record<string, number> = {};
    for (const [name, counter] of this.#dropped) all[name] = counter.value;
    return all;
  }

  get receivedAll(): number {
    return this.received[0].value + this.received[1].value + this.received[2].value;
  }

  get sentAll(): number {
    return this.sent[0].value + this.sent[1].value + this.sent[2].value;
  }
}

/** As what a violation is counted. */
export function faultOf(reasonCode: number): ProtocolFault {
  switch (reasonCode) {
    case reason.malformedPacket:
      return "malformed";
    case reason.protocolError:
      return "protocol";
    case reason.packetTooLarge:
      return "too-large";
    case reason.receiveMaximumExceeded:
      return "receive-maximum";
    case reason.topicNameInvalid:
    case reason.topicFilterInvalid:
    case reason.topicAliasInvalid:
      return "topic";
    default:
      return "other";
  }
}
