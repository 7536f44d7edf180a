import type { Clock } from "../base/clock.ts";
import type { BrokerMetrics } from "./metrics.ts";

/** What the broker has of each now. */
export interface SysCounts {
  readonly connected: number;
  /** Of connected clients and durable ones. */
  readonly sessions: number;
  readonly subscriptions: number;
  /** Of these, shared ones. */
  readonly shared: number;
  readonly retained: number;
  /** Messages that wait in the store (one that waits for two clients counts twice), and retained ones. */
  readonly stored: number;
  readonly storedBytes: number;
}

export interface SysSource {
  readonly version: string;
  readonly clock: Clock;
  readonly metrics: BrokerMetrics;
  readonly counts: () => SysCounts;
  /** Bytes of the process's heap. */
  readonly heapBytes: () => number;
  readonly publish: (topic: string, text: string) => void;
}

const minutes = [1, 5, 15] as const;

/** Below it two decimals say 0.00. */
const nothing = 0.005;

/** Averages over 1, 5 and 15 minutes of how much a total grows in a minute, as Mosquitto works them out. */
class Load {
  readonly #values = [0, 0, 0];
  readonly #names: readonly string[];
  #total = 0;

  constructor(name: string) {
    this.#names = minutes.map((span) => `load/${name}/${span}min`);
  }

  /** @param seconds since the last time, above 0 @param say called with name and text of each */
  update(total: number, seconds: number, say: (name: string, text: string) => void): void {
    const perMinute = ((total - this.#total) * 60) / seconds;
    this.#total = total;
    for (let at = 0; at < minutes.length; at += 1) {
      const before = this.#values[at] ?? 0;
      const kept = before === perMinute ? 0 : Math.exp(-seconds / (60 * (minutes[at] ?? 1)));
      const value = perMinute + kept * (before - perMinute);
      this.#values[at] = value < nothing && perMinute === 0 ? 0 : value; // an idle broker works nothing out
      say(this.#names[at] ?? "", value < nothing ? "0.00" : value.toFixed(2));
    }
  }
}

type Totals = Readonly<Record<string, number>>;

/**
 * `$SYS/broker/...` under the names that Mosquitto 2 uses, retained, and published only when a value has changed. Not here is what means nothing for us:
 * `connection/#` (bridges; uplinks say their state in `$SYS/tidegate`) and the log.
 */
export class SysTopics {
  readonly #source: SysSource;
  readonly #startedMs: number;
  readonly #last = new Map<string, string>();
  readonly #loads = new Map<string, Load>();
  #updatedMs: number;
  #connectedMax = 0;
  #heapMax = 0;

  constructor(source: SysSource) {
    this.#source = source;
    this.#startedMs = this.#updatedMs = source.clock.monotonicMs();
  }

  publish(): void {
    const nowMs = this.#source.clock.monotonicMs();
    const totals = this.#totals();
    this.#publishAll({
      version: `tidegate version ${this.#source.version}`,
      uptime: `${Math.floor((nowMs - this.#startedMs) / 1000)} seconds`,
      ...this.#now(),
      ...totals,
    });
    this.#publishLoads(totals, Math.max(1, nowMs - this.#updatedMs) / 1000);
    this.#updatedMs = nowMs;
  }

  /** Messages are packets of all kinds here, but for `publish/...`, as in Mosquitto. */
  #totals(): Totals {
    const { metrics } = this.#source;
    return {
      "bytes/received": metrics.bytesReceived.value,
      "bytes/sent": metrics.bytesSent.value,
      "messages/received": metrics.receivedAll + metrics.othersReceived.value,
      "messages/sent": metrics.sentAll + metrics.othersSent.value,
      "publish/messages/received": metrics.receivedAll,
      "publish/messages/sent": metrics.sentAll,
      "publish/messages/dropped": metrics.droppedAll,
      "publish/bytes/received": metrics.payloadReceived.value,
      "publish/bytes/sent": metrics.payloadSent.value,
    };
  }

  #now(): Totals {
    const { counts, metrics, heapBytes } = this.#source;
    const { connected, sessions, subscriptions, shared, retained, stored, storedBytes } = counts();
    const total = Math.max(sessions, connected);
    const heap = heapBytes();
    this.#connectedMax = Math.max(this.#connectedMax, connected);
    this.#heapMax = Math.max(this.#heapMax, heap);
    return {
      "clients/connected": connected,
      "clients/active": connected,
      "clients/disconnected": total - connected,
      "clients/inactive": total - connected,
      "clients/total": total,
      "clients/maximum": this.#connectedMax,
      "clients/expired": metrics.sessionsExpired.value,
      "subscriptions/count": subscriptions - shared,
      "shared_subscriptions/count": shared,
      "retained messages/count": retained,
      "store/messages/count": stored,
      "store/messages/bytes": storedBytes,
      "messages/stored": stored,
      "heap/current": heap,
      "heap/maximum": this.#heapMax,
    };
  }

  #publishLoads(totals: Totals, seconds: number): void {
    const { metrics } = this.#source;
    const loads: Totals = {
      "messages/received": totals["messages/received"] ?? 0,
      "messages/sent": totals["messages/sent"] ?? 0,
      "publish/received": totals["publish/messages/received"] ?? 0,
      "publish/sent": totals["publish/messages/sent"] ?? 0,
      "publish/dropped": totals["publish/messages/dropped"] ?? 0,
      "bytes/received": totals["bytes/received"] ?? 0,
      "bytes/sent": totals["bytes/sent"] ?? 0,
      sockets: metrics.connectionsAccepted.value,
      connections: metrics.connects.value,
    };
    for (const name in loads) {
      let load = this.#loads.get(name);
      if (load === undefined) {
        load = new Load(name);
        this.#loads.set(name, load);
      }
      load.update(loads[name] ?? 0, seconds, this.#say);
    }
  }

  #publishAll(values: Readonly<Record<string, string | number>>): void {
    for (const name in values) this.#publishOne(name, String(values[name]));
  }

  readonly #say = (name: string, text: string): void => this.#publishOne(name, text);

  #publishOne(name: string, text: string): void {
    if (this.#last.get(name) === text) return;
    this.#last.set(name, text);
    this.#source.publish(`$SYS/broker/${name}`, text);
  }
}
