import { join } from "node:path";
import { freePorts } from "../helpers/ports.ts";
import { aedes, type Broker, bare, bareRuns, has, mosquitto, natsServer, pinned, tidegate } from "./brokers.ts";
import { runScript } from "./loadProcess.ts";
import { type BenchReport, type Figure, figure } from "./record.ts";
import { median, say, thousands } from "./report.ts";
import type { TrafficOptions, TrafficResult } from "./traffic.ts";

/**
 * Messages passed on, by shape of the traffic, the broker on one core and the load on the other; peers in turn. Where the load takes its whole core
 * the rates say nothing of the brokers, so what each spends on a message is told as well.
 */

interface Shape {
  readonly name: string;
  readonly traffic: Omit<TrafficOptions, "port" | "seconds" | "payloadBytes">;
  /** Peers that cannot do it. */
  readonly without?: readonly string[];
}

export const shapes: readonly Shape[] = [
  { name: "fan-in 20:1", traffic: { groups: 1, publishers: 20, subscribers: 1, qos: 0, window: 20_000 } },
  { name: "fan-out 1:100", traffic: { groups: 1, publishers: 1, subscribers: 100, qos: 0, window: 1000 } },
  { name: "100 pairs", traffic: { groups: 100, publishers: 1, subscribers: 1, qos: 0, window: 500 } },
  { name: "1000 pairs, 1 in flight", traffic: { groups: 1000, publishers: 1, subscribers: 1, qos: 0, window: 1 } },
  {
    name: "QoS 1, 100 pairs",
    traffic: { groups: 100, publishers: 1, subscribers: 1, qos: 1, window: 20 },
    without: ["bare, in runs"],
  },
  {
    name: "QoS 2, 100 pairs",
    traffic: { groups: 100, publishers: 1, subscribers: 1, qos: 2, window: 20 },
    without: ["nats-server", "bare, in runs"],
  },
  {
    name: "QoS 1, 100 pairs, persistent sessions (tidegate: synced before each PUBACK)",
    traffic: { groups: 100, publishers: 1, subscribers: 1, qos: 1, window: 20, persistent: true },
    without: ["bare", "bare, in runs", "nats-server", "aedes"],
  },
];

export const runTraffic = (options: TrafficOptions): Promise<TrafficResult> =>
  runScript<TrafficResult>(join(import.meta.dirname, "traffic.ts"), options, { core: 1 });

async function measure(broker: Broker, shape: Shape, seconds: number): Promise<TrafficResult> {
  const [port = 0] = await freePorts(1);
  await broker.start(port, pinned(0));
  try {
    return await runTraffic({ ...shape.traffic, payloadBytes: 100, port, seconds, brokerPid: broker.pid() });
  } finally {
    await broker.stop();
  }
}

/** @param only parts of names of shapes; none: all of them */
export async function routing(rounds: number, seconds: number, only: readonly string[]): Promise<BenchReport> {
  const figures: Figure[] = [];
  for (const shape of shapes) {
    if (only.length > 0 && !only.some((part) => shape.name.includes(part))) continue;
    const all = [tidegate({ durable: false }), bare(), bareRuns(), ...(has("mosquitto") ? [mosquitto()] : [])];
    if (has("nats-server")) all.push(natsServer());
    all.push(aedes());
    const brokers = all.filter(({ name }) => shape.without?.includes(name) !== true);
    const seen = new Map<string, TrafficResult[]>(brokers.map(({ name }) => [name, []]));
    for (let round = 0; round < rounds; round += 1)
      for (const broker of brokers) seen.get(broker.name)?.push(await measure(broker, shape, seconds));
    say(`\n${shape.name}`);
    const ours = seen.get("tidegate") ?? [];
    for (const [name, results] of seen) {
      tell(name, results, ours);
      const about = `${shape.name}, ${name}`;
      figures.push(
        figure(
          about,
          "msg/s",
          results.map((one) => Math.round(one.perSecond)),
          "more",
        ),
        figure(
          `${about}, CPU of the broker`,
          "us/msg",
          results.map((one) => one.brokerUs),
        ),
      );
    }
  }
  return { name: "routing", figures };
}

const medianOf = (results: readonly TrafficResult[], field: keyof TrafficResult): number =>
  median(results.map((one) => one[field]));

function tell(name: string, results: readonly TrafficResult[], ours: readonly TrafficResult[]): void {
  const rates = results.map(({ perSecond }) => perSecond);
  const lost = results.reduce((sum, result) => sum + result.lost, 0);
  const [rate, us] = [median(rates), medianOf(results, "brokerUs")];
  const [rateRatio, usRatio] = [medianOf(ours, "perSecond") / rate, us / medianOf(ours, "brokerUs")];
  const range = `[${thousands(Math.min(...rates))} - ${thousands(Math.max(...rates))}]`;
  const spent = `${us.toFixed(us < 1 ? 3 : 2)} us of CPU each, load ${medianOf(results, "loadCores").toFixed(2)} cores`;
  const ratio = results === ours ? "" : `; tidegate ${rateRatio.toFixed(2)} x, by CPU ${usRatio.toFixed(2)} x`;
  say(
    `  ${name.padEnd(13)} ${thousands(rate).padStart(9)} ${range}, ${spent}${ratio}${lost > 0 ? `, ${lost} lost` : ""}`,
  );
}
