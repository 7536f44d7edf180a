import type { Qos } from "../base/message.ts";
import type { Counter, Meter } from "../base/meter.ts";

/** Why a message did not reach somebody. A closed list: labels never come from outside. */
export type DropReason =
  | "outbox-full"
  | "offline"
  | "queue-full"
  | "expired"
  | "too-large"
  | "sys-topic"
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
  | "websocket"
  | "other";

/** The broker's counters. On the hot path a counter is a field increment. */
export class BrokerMetrics {
  readonly received: readonly [Counter, Counter, Counter];
  readonly sent: readonly [Counter, Counter, Counter];
  readonly bytesReceived: Counter;
  readonly bytesSent: Counter;
  readonly connectionsAccepted: Counter;
  readonly #meter: Meter;
  readonly #dropped = new Map<DropReason, Counter>();
  readonly #faults = new Map<ProtocolFault, Counter>();
  readonly #refused = new Map<string, Counter>();

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
