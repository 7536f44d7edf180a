import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { freePorts } from "../helpers/ports.ts";
import { type Broker, has, mosquitto, tidegate } from "./brokers.ts";
import { drain } from "./drain.ts";
import { latency } from "./latency.ts";
import type { LoadOptions } from "./load.ts";
import { runLoad } from "./loadProcess.ts";
import { syncsUnderLogins } from "./logins.ts";
import { type BenchReport, beginRun, type Figure, storeRun } from "./record.ts";
import { median, say, thousands } from "./report.ts";
import { routing } from "./routing.ts";
import { scale } from "./scale.ts";
import { soak } from "./soak.ts";
import { lonely, million } from "./storage.ts";
import { turns } from "./turns.ts";

/**
 * `npm run bench`: side by side with the peers found on the PATH (mosquitto, nats-server). The brokers take turns, round by round, so that a
 * machine whose speed drifts is the same for all; medians and their ratio are printed, and every figure is stored with its machine and commit in
 * test/bench/results (or `--out FILE`), for `npm run bench:compare`.
 * `npm run bench -- NAME...` runs some: routing, latency, speed, million, drain, lonely, turn, logins, scale; `routing:fan-in` and `turn:fan-in` one shape of
 * the traffic, `drain:speed`, `drain:fresh` and `drain:paced` parts of drain, `scale:retained`,
 * `scale:subscriptions`, `scale:connects`, `scale:idle`, `scale:small`, `scale:start` and `scale:quiet` of scale; `soak` (TIDEGATE_BENCH_MINUTES, 60) runs only when it is named.
 * TIDEGATE_BENCH_ROUNDS (5) and TIDEGATE_BENCH_SECONDS (3) make all others longer or shorter.
 */
const rounds = Number(process.env["TIDEGATE_BENCH_ROUNDS"] ?? 5);
const seconds = Number(process.env["TIDEGATE_BENCH_SECONDS"] ?? 3);

interface Case {
  readonly name: string;
  readonly load: Omit<LoadOptions, "port" | "seconds">;
  readonly note: string;
}

const cases: readonly Case[] = [
  {
    name: "QoS 0 flood, 10 publishers to 1 subscriber, 100 B",
    load: { mode: "fan-in-qos0", publishers: 10, payloadBytes: 100, window: 0 },
    note: "messages that reach the subscriber; what it cannot take is dropped",
  },
  {
    name: "QoS 1 durable, 100 publishers, 10 in flight each, 200 B",
    load: { mode: "qos1", publishers: 100, payloadBytes: 200, window: 10 },
    note: "PUBACKs; tidegate: each after fdatasync, an uplink that is down keeps all of it; mosquitto: no disk at all",
  },
];

async function measure(broker: Broker, load: Case["load"]): Promise<number> {
  const [port = 0] = await freePorts(1);
  await broker.start(port);
  try {
    return (await runLoad({ ...load, port, seconds })).perSecond;
  } finally {
    await broker.stop();
  }
}

const hasMosquitto = has("mosquitto");
if (!hasMosquitto) say("mosquitto is not on the PATH: tidegate alone (apt-get install mosquitto)");

say(
  `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${rounds} rounds of ${seconds} s, brokers in turn; medians [min - max]`,
);

async function speed(): Promise<BenchReport> {
  const figures: Figure[] = [];
  for (const { name, load, note } of cases) {
    const brokers = [tidegate({ durable: load.mode === "qos1" }), ...(hasMosquitto ? [mosquitto()] : [])];
    const rates = new Map<string, number[]>(brokers.map((broker) => [broker.name, []]));
    for (let round = 0; round < rounds; round += 1)
      for (const broker of brokers) rates.get(broker.name)?.push(await measure(broker, load));
    say(`\n${name}\n  (${note})`);
    for (const [broker, values] of rates) {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      say(`  ${broker.padEnd(10)} ${thousands(median(values))} [${thousands(low)} - ${thousands(high)}]`);
    }
    const [ours = 0, theirs] = [...rates.values()].map(median);
    if (theirs !== undefined) say(`  ratio      ${(ours / theirs).toFixed(2)} x mosquitto`);
    for (const [broker, values] of rates)
      figures.push({ name: `${name}, ${broker}`, unit: "msg/s", better: "more", values: values.map(Math.round) });
  }
  return { name: "speed", figures };
}

const { values: options, positionals } = parseArgs({ options: { out: { type: "string" } }, allowPositionals: true });
const chosen = positionals.map((name) => name.split(":"));
const partsOf = (wanted: string): string[] =>
  chosen.flatMap(([name, part]) => (name === wanted && part !== undefined ? [part] : []));
const all: Readonly<Record<string, () => Promise<BenchReport>>> = {
  routing: () => routing(rounds, seconds, partsOf("routing")),
  latency: () => latency(rounds, seconds),
  speed,
  million,
  drain: () => drain(Math.min(rounds, 3), partsOf("drain")),
  lonely,
  turn: () => turns(Math.min(rounds, 3), seconds, partsOf("turn")),
  logins: syncsUnderLogins,
  scale: () => scale(partsOf("scale")),
};
/** Only when it is named. */
const long: typeof all = { soak };
for (const [name = ""] of chosen)
  if (!Object.hasOwn({ ...all, ...long }, name))
    throw new Error(`there is no benchmark ${name}: ${Object.keys({ ...all, ...long }).join(", ")}`);
const ended = beginRun(rounds, seconds);
const reports: BenchReport[] = [];
for (const [name, run] of Object.entries(chosen.length === 0 ? all : { ...all, ...long }))
  if (chosen.length === 0 || chosen.some(([wanted]) => wanted === name)) reports.push(await run());
say(`\nstored in ${storeRun(ended(reports), options.out)}`);
