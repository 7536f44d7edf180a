import type { Duplex } from "node:stream";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { type Log, LogLimiter, silentLog } from "../../src/base/log.ts";
import { Meter } from "../../src/base/meter.ts";
import { Admission } from "../../src/broker/admission.ts";
import { openListener } from "../../src/broker/listener.ts";
import { BrokerMetrics } from "../../src/broker/metrics.ts";
import type { ListenerOptions } from "../../src/broker/options.ts";
import { type BrokerLimits, type ListenerHandle, limitDefaults, type PeerInfo } from "../../src/broker/options.ts";

export interface Entered {
  readonly stream: Duplex;
  readonly peer: PeerInfo;
}

/** Listeners without a broker behind them: what they let in is kept. */
export class OpenDoors {
  readonly entered: Entered[] = [];
  readonly metrics = new BrokerMetrics(new Meter());
  readonly #deps: Parameters<typeof openListener>[1];
  readonly #handles: ListenerHandle[] = [];

  constructor(options: { limits?: Partial<BrokerLimits>; log?: Log; clock?: Clock } = {}) {
    const limits = { ...limitDefaults, ...options.limits };
    this.#deps = {
      clock: options.clock ?? systemClock,
      log: options.log ?? silentLog,
      faultLog: new LogLimiter(),
      metrics: this.metrics,
      limits,
      admission: new Admission(limits, this.metrics),
      accept: (stream, peer) => {
        stream.on("error", () => {});
        this.entered.push({ stream, peer });
      },
    };
  }

  async open(options: ListenerOptions): Promise<ListenerHandle> {
    const handle = await openListener(options, this.#deps);
    this.#handles.push(handle);
    return handle;
  }

  refused(reason: Parameters<BrokerMetrics["refused"]>[0]): number {
    return this.metrics.refused(reason).value;
  }

  /** Ends everything that it let in. */
  async close(): Promise<void> {
    const closing = this.#handles.splice(0).map((handle) => handle.close());
    for (const { stream } of this.entered.splice(0)) stream.destroy();
    await Promise.all(closing);
  }
}
