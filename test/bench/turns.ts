import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { pinned, tidegate } from "./brokers.ts";
import { runLatency, steady } from "./latency.ts";
import { runLoad } from "./loadProcess.ts";
import type { BenchReport } from "./record.ts";
import { median, say } from "./report.ts";
import { runTraffic, shapes } from "./routing.ts";
import { stand } from "./storage.ts";

/** The longest turn of the event loop under each load of the benchmarks, in runs of their own: what measures is not in the other figures. */

const limitMs = 20;

/** For the environment of a gateway that is to be asked for its turns. */
const metered = { NODE_OPTIONS: `--import ${pathToFileURL(join(import.meta.dirname, "turnMeter.mjs")).href}` };

/** The longest turn since the last time, ms of the main thread's CPU; an upper bound. */
async function longestTurn(gateway: GatewayProcess): Promise<number> {
  const before = gateway.stderr.length;
  process.kill(gateway.pid, "SIGUSR2");
  await until("the meter answers", () => gateway.stderr.slice(before).includes("longest turn"));
  return Number(/longest turn ([\d.]+) ms/.exec(gateway.stderr.slice(before))?.[1]);
}

/** Until what a start leaves for after "ready" is done: a tenth of a second without a turn that shows. */
async function started(gateway: GatewayProcess): Promise<void> {
  do await new Promise((resolve) => setTimeout(resolve, 100));
  while ((await longestTurn(gateway)) > 3);
}

interface Load {
  readonly name: string;
  readonly durable?: boolean;
  readonly run: (port: number, seconds: number) => Promise<unknown>;
}

const loads: readonly Load[] = [
  ...shapes.map(({ name, traffic }): Load => {
    return { name, run: (port, seconds) => runTraffic({ ...traffic, payloadBytes: 100, port, seconds }) };
  }),
  ...([0, 1] as const).map((qos): Load => {
    return {
      name: `steady ${steady.perSecond}/s, QoS ${qos}`,
      run: (port, seconds) => runLatency({ ...steady, qos, port, seconds }),
    };
  }),
  {
    name: "QoS 0 flood, 10 publishers to 1 subscriber",
    run: (port, seconds) =>
      runLoad({ mode: "fan-in-qos0", publishers: 10, payloadBytes: 100, window: 0, port, seconds }),
  },
  {
    name: "durable QoS 1, 100 publishers, all of it waiting",
    durable: true,
    run: (port, seconds) => runLoad({ mode: "qos1", publishers: 100, payloadBytes: 200, window: 10, port, seconds }),
  },
  { name: "log-ins", run: (port, seconds) => runLoad({ mode: "logins", window: 50, port, seconds }) },
];

async function underLoad(load: Load, seconds: number): Promise<number> {
  const [port = 0] = await freePorts(1);
  const broker = tidegate({ durable: load.durable === true, env: metered });
  await broker.start(port, pinned(0));
  try {
    await started(broker.gateway());
    await load.run(port, seconds);
    return await longestTurn(broker.gateway());
  } finally {
    await broker.stop();
  }
}

/** What a store grows to: many values and sessions, and checkpoints of all of them. */
async function withMuchToKeep(): Promise<Map<string, number>> {
  const turns = new Map<string, number>();
  const { gateway, port } = await stand(metered);
  try {
    await started(gateway);
    await runLoad({ mode: "retained", port, messages: 100_000, payloadBytes: 100 });
    turns.set("100,000 retained come in", await longestTurn(gateway));
    await runLoad({ mode: "sessions", port, messages: 10_000 });
    turns.set("10,000 sessions come and go", await longestTurn(gateway));
    await runLoad({ mode: "qos1", port, publishers: 100, window: 10, seconds: 15 });
    turns.set("durable QoS 1 with checkpoints of all that", await longestTurn(gateway));
    return turns;
  } finally {
    await gateway.remove();
  }
}

/** @param only parts of names of loads; none: all of them */
export async function turns(rounds: number, seconds: number, only: readonly string[]): Promise<BenchReport> {
  const wanted = (name: string): boolean => only.length === 0 || only.some((part) => name.includes(part));
  const seen = new Map<string, number[]>();
  const add = (name: string, ms: number): unknown => seen.set(name, [...(seen.get(name) ?? []), ms]);
  for (let round = 0; round < rounds; round += 1) {
    for (const load of loads.filter(({ name }) => wanted(name))) add(load.name, await underLoad(load, seconds));
    if (wanted("kept")) for (const [name, ms] of await withMuchToKeep()) add(name, ms);
  }
  say("\nLongest turn of the event loop, ms of the main thread's CPU (upper bound): median and longest of the rounds");
  for (const [name, values] of seen) {
    const most = Math.max(...values);
    const [middle, end] = [median(values), most].map((ms) => ms.toFixed(1).padStart(6));
    say(`  ${middle} ${end}  ${name}${most > limitMs ? `  OVER ${limitMs} ms` : ""}`);
  }
  return {
    name: "turn",
    figures: [...seen].map(([name, values]) => ({ name, unit: "ms", better: "less", values })),
  };
}
