import type { UplinkQueueStats } from "../base/contracts.ts";
import type { Counter, Meter } from "../base/meter.ts";

export interface UplinkCounters {
  readonly sent: Counter;
  readonly acknowledged: Counter;
  readonly resent: Counter;
  readonly refusals: Counter;
  readonly strayAcks: Counter;
  readonly connects: Counter;
  readonly disconnects: Counter;
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

/** Registers an uplink's gauges. Returns what takes them away. */
export function uplinkGauges(
  meter: Meter,
  name: string,
  read: { up(): boolean; paused(): boolean; inflight(): number; queue(): UplinkQueueStats },
): () => void {
  const labels = { uplink: name };
  const names: string[] = [];
  const gauge = (suffix: string, help: string, value: () => number): void => {
    const full = `tidegate_uplink_${suffix}`;
    names.push(full);
    meter.gauge(full, help, value, labels);
  };
  gauge("up", "1 while the cloud is connected", () => (read.up() ? 1 : 0));
  gauge("paused", "1 while an operator has paused it", () => (read.paused() ? 1 : 0));
  gauge("inflight", "Messages sent and not acknowledged", read.inflight);
  gauge("queue_messages", "Messages that wait for the cloud", () => read.queue().messages);
  gauge("queue_bytes", "Bytes that wait for the cloud", () => read.queue().bytes);
  return () => {
    for (const full of names) meter.dropGauge(full, labels);
  };
}
