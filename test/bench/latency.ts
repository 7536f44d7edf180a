import { join } from "node:path";
import { freePorts } from "../helpers/ports.ts";
import { aedes, type Broker, bare, has, mosquitto, natsServer, pinned, tidegate } from "./brokers.ts";
import type { LatencyOptions, LatencyResult } from "./latencyLoad.ts";
import { runScript } from "./loadProcess.ts";
import type { BenchReport, Figure } from "./record.ts";
import { median, say } from "./report.ts";

/** Latency at a steady rate, from when a message was due, the broker on one core and the load on the other; peers in turn. */

export const steady: Omit<LatencyOptions, "port" | "seconds" | "qos"> = {
  pairs: 20,
  payloadBytes: 100,
  perSecond: 10_000,
};

const percentiles = ["p50", "p99", "p999", "most"] as const;
const titles = { p50: "p50", p99: "p99", p999: "p99.9", most: "max" } as const;

export async function runLatency(options: LatencyOptions): Promise<LatencyResult> {
  const node = ["--max-semi-space-size=64"]; // its garbage would show as the broker's delay
  return await runScript<LatencyResult>(join(import.meta.dirname, "latencyLoad.ts"), options, { core: 1, node });
}

async function measure(broker: Broker, qos: 0 | 1, seconds: number): Promise<LatencyResult> {
  const [port = 0] = await freePorts(1);
  await broker.start(port, pinned(0));
  try {
    return await runLatency({ ...steady, qos, port, seconds });
  } finally {
    await broker.stop();
  }
}

export async function latency(rounds: number, seconds: number): Promise<BenchReport> {
  const figures: Figure[] = [];
  for (const qos of [0, 1] as const) {
    const brokers = [tidegate({ durable: false }), bare(), ...(has("mosquitto") ? [mosquitto()] : []), aedes()];
    if (has("nats-server")) brokers.push(natsServer());
    const seen = new Map<string, LatencyResult[]>(brokers.map(({ name }) => [name, []]));
    for (let round = 0; round < rounds; round += 1)
      for (const broker of brokers) seen.get(broker.name)?.push(await measure(broker, qos, seconds));
    say(`\nLatency at ${steady.perSecond} messages/s, QoS ${qos}, ${steady.pairs} pairs, us: p50, p99, p99.9, max`);
    for (const [name, results] of seen) figures.push(...tell(`QoS ${qos}, ${name}`, name, results));
  }
  return { name: "latency", figures };
}

function tell(title: string, name: string, results: readonly LatencyResult[]): Figure[] {
  const figures = percentiles.map((which): Figure => {
    const values = results.map((result) => result[which]);
    return { name: `${title}, ${titles[which]}`, unit: "us", better: "less", values };
  });
  const medians = figures.map(({ values }) => median(values).toFixed(1).padStart(8)).join(" ");
  const ranges = figures.slice(0, 2).map(({ values }) => `[${Math.min(...values)} - ${Math.max(...values)}]`);
  const late = median(results.map(({ lateP99 }) => lateP99));
  const lost = results.reduce((sum, result) => sum + result.lost, 0);
  say(
    `  ${name.padEnd(12)} ${medians}  ${ranges.join(" ")}, p99 of the load's own delay ${late.toFixed(1)}${lost > 0 ? `, ${lost} lost` : ""}`,
  );
  return figures;
}
