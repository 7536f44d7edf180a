import { type Clock, systemClock } from "../../src/base/clock.ts";
import { type Log, silentLog } from "../../src/base/log.ts";
import { Meter } from "../../src/base/meter.ts";
import { createBroker } from "../../src/broker/broker.ts";
import { type Broker, type BrokerLimits, limitDefaults } from "../../src/broker/options.ts";
import { MemoryStore } from "./memoryStore.ts";
import { metricOf } from "./metric.ts";

export interface OpenBroker {
  readonly broker: Broker;
  /** Of a counter with a reason: `refused("tls")`, `faults("websocket")`. */
  refused(reason: string): number;
  faults(reason: string): number;
  /** Of a gauge or counter, by its name with its labels. */
  metric(name: string): number;
}

/** A broker on a memory store whose listeners are real: what the tests of transports need. */
export function openBroker(
  options: { limits?: Partial<BrokerLimits>; log?: Log; clock?: Clock; anonymous?: boolean } = {},
): OpenBroker {
  const meter = new Meter();
  const broker = createBroker(
    { anonymous: options.anonymous ?? true, limits: { ...limitDefaults, ...options.limits }, version: "0" },
    {
      store: new MemoryStore(),
      clock: options.clock ?? systemClock,
      log: options.log ?? silentLog,
      meter,
      routing: { routesFor: () => [] },
      forwarding: { forwardsFor: () => [] },
    },
  );
  const value = (name: string, reason: string): number =>
    Number(new RegExp(`^${name}\\{reason="${reason}"\\} (\\d+)$`, "m").exec(meter.expose())?.[1] ?? 0);
  return {
    broker,
    refused: (reason) => value("tidegate_mqtt_refused_total", reason),
    metric: (name) => metricOf(meter, name),
    faults: (reason) => value("tidegate_mqtt_protocol_errors_total", reason),
  };
}
