import type { UplinkState } from "../base/contracts.ts";
import type { LinkFaultCode } from "../base/linkFaults.ts";
import type { Counter, Meter } from "../base/meter.ts";

export interface UplinkCounters {
  readonly sent: Counter;
  readonly acknowledged: Counter;
  readonly resent: Counter;
  readonly refusals: Counter;
  readonly strayAcks: Counter;
  readonly connects: Counter;
  readonly disconnects: Counter;
  /** Of `disconnects`, by reason. */
  readonly faults: (code: LinkFaultCode) => Counter;
  readonly aliasSavedBytes: Counter;
  /** QoS 0 messages not sent: no link, its buffer full, or why the message cannot be sent at all. */
  readonly liveDropped: Readonly<Record<"down" | "paused" | "full" | "expired" | "too-large" | "refused", Counter>>;
  readonly commands: Counter;
  readonly commandsRefused: Counter;
  readonly commandsIgnored: Counter;
  readonly commandsRepeated: Counter;
  readonly commandsReturned: Counter;
}

/** The counters of an uplink; the same ones for the same name. */
export function uplinkCounters(meter: Meter, name: string): UplinkCounters {
  const counter = (suffix: string, help: string, labels: Record<string, string> = {}): Counter =>
    meter.counter(`tidegate_uplink_${suffix}_total`, help, { uplink: name, ...labels });
  const live = (reason: string): Counter => counter("live_dropped", "QoS 0 messages not sent, by reason", { reason });
  return {
    sent: counter("sent", "PUBLISH packets sent to the cloud"),
    acknowledged: counter("acknowledged", "Messages acknowledged by the cloud"),
    resent: counter("resent", "PUBLISH packets sent again after a lost link or a refusal"),
    refusals: counter("refusals", "Messages refused by the cloud with a reason code, each time"),
    strayAcks: counter("stray_acks", "Acknowledgements of the cloud for what it cannot have"),
    connects: counter("connects", "Connections that the cloud accepted"),
    disconnects: counter("disconnects", "Connections and attempts that ended without our wish"),
    faults: (reason) =>
      counter("faults", "Connections and attempts that ended without our wish, by reason", { reason }),
    aliasSavedBytes: counter(
      "alias_saved_bytes",
      "Bytes of topics that were not sent because the cloud knows an alias",
    ),
    liveDropped: {
      down: live("down"),
      paused: live("paused"),
      full: live("full"),
      expired: live("expired"),
      "too-large": live("too-large"),
      refused: live("refused"),
    },
    commands: counter("commands", "Messages received from the cloud"),
    commandsRefused: counter("commands_refused", "Messages of the cloud that could not be stored"),
    commandsRepeated: counter("commands_repeated", "QoS 2 messages of the cloud that had been taken before"),
    commandsReturned: counter("commands_returned", "Messages of our own that a 3.1.1 cloud sent back"),
    commandsIgnored: counter("commands_ignored", "Messages of the cloud that no receive rule can place"),
  };
}

export interface UplinkGauges {
  /** A reason that the link was ever down for: 1 while it is. */
  seen(code: LinkFaultCode): void;
  drop(): void;
}

/** Registers an uplink's gauges. */
export function uplinkGauges(
  meter: Meter,
  name: string,
  read: {
    up(): boolean;
    paused(): boolean;
    inflight(): number;
    state(): UplinkState;
    oldestAgeMs(): number;
    /** Undefined: it has no certificate. */
    readonly certificateEndMs: (() => number) | undefined;
  },
): UplinkGauges {
  const labels = { uplink: name };
  const names: string[] = [];
  const gauge = (suffix: string, help: string, value: () => number): void => {
    const full = `tidegate_uplink_${suffix}`;
    names.push(full);
    meter.gauge(full, help, value, labels);
  };
  const { state, certificateEndMs: endMs } = read;
  gauge("up", "1 while the cloud is connected", () => (read.up() ? 1 : 0));
  gauge("paused", "1 while an operator has paused it", () => (read.paused() ? 1 : 0));
  gauge("inflight", "Messages sent and not acknowledged", read.inflight);
  gauge("queue_messages", "Messages that wait for the cloud", () => state().queue.messages);
  gauge("queue_bytes", "Bytes that wait for the cloud", () => state().queue.bytes);
  gauge("queue_oldest_age_seconds", "Age of the oldest that waits", () => read.oldestAgeMs() / 1000);
  gauge("since_seconds", "Unix time since when it is up, or is not up", () => state().sinceMs / 1000);
  gauge("attempts", "Fruitless connections in a row", () => state().attempts);
  gauge("in_per_second", "Messages accepted, mean of a minute", () => state().rates.inPerSecond1m ?? Number.NaN);
  gauge("out_per_second", "Messages acknowledged, mean of a minute", () => state().rates.outPerSecond1m ?? Number.NaN);
  gauge("eta_seconds", "Until the backlog is through; +Inf: never as things are", () =>
    state().eta.state === "measuring" ? Number.NaN : (state().eta.seconds ?? Number.POSITIVE_INFINITY),
  );
  gauge("room_bytes", "Until the queue's cap", () => state().room.bytes);
  gauge(
    "room_seconds",
    "How long an outage may last until the queue's cap, as it comes in now; +Inf: nothing comes in",
    () => state().room.seconds ?? Number.POSITIVE_INFINITY,
  );
  if (endMs) gauge("certificate_expires_seconds", "Unix time at which tls.cert ends", () => endMs() / 1000);
  const seen = new Set<LinkFaultCode>();
  const fault = "tidegate_uplink_fault";
  return {
    seen(reason) {
      if (seen.has(reason)) return;
      seen.add(reason);
      const isNow = (): number => (state().reason === reason ? 1 : 0);
      meter.gauge(fault, "1 for the reason why it is not up", isNow, { ...labels, reason });
    },
    drop() {
      for (const full of names) meter.dropGauge(full, labels);
      for (const reason of seen) meter.dropGauge(fault, { ...labels, reason });
    },
  };
}
