import type { Clock } from "../base/clock.ts";
import type { BrokerMetrics } from "./metrics.ts";

export interface SysSource {
  readonly version: string;
  readonly clock: Clock;
  readonly metrics: BrokerMetrics;
  readonly connected: () => number;
  readonly sessions: () => number;
  readonly subscriptions: () => number;
  readonly retained: () => number;
  readonly publish: (topic: string, text: string) => void;
}

/** `$SYS/broker/...` under the names that Mosquitto uses, retained, and published only when a value has changed. */
export class SysTopics {
  readonly #source: SysSource;
  readonly #startedMs: number;
  readonly #last = new Map<string, string>();
  #connectedMax = 0;

  constructor(source: SysSource) {
    this.#source = source;
    this.#startedMs = source.clock.monotonicMs();
  }

  publish(): void {
    const { version, clock, metrics, connected, sessions, subscriptions, retained } = this.#source;
    const online = connected();
    const total = Math.max(sessions(), online);
    this.#connectedMax = Math.max(this.#connectedMax, online);
    const dropped = Object.values(metrics.droppedByReason()).reduce((sum, count) => sum + count, 0);
    const values: Readonly<Record<string, string | number>> = {
      version: `tidegate version ${version}`,
      uptime: `${Math.floor((clock.monotonicMs() - this.#startedMs) / 1000)} seconds`,
      "clients/connected": online,
      "clients/disconnected": total - online,
      "clients/total": total,
      "clients/maximum": this.#connectedMax,
      "messages/received": metrics.receivedAll,
      "messages/sent": metrics.sentAll,
      "publish/messages/received": metrics.receivedAll,
      "publish/messages/sent": metrics.sentAll,
      "publish/messages/dropped": dropped,
      "subscriptions/count": subscriptions(),
      "retained messages/count": retained(),
      "bytes/received": metrics.bytesReceived.value,
      "bytes/sent": metrics.bytesSent.value,
    };
    for (const [name, value] of Object.entries(values)) {
      const text = String(value);
      if (this.#last.get(name) === text) continue;
      this.#last.set(name, text);
      this.#source.publish(`$SYS/broker/${name}`, text);
    }
  }
}
