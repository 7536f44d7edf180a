import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { type PeerProcess, peerPath, startPeer } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import type { LoadOptions } from "./load.ts";
import { runLoad } from "./loadProcess.ts";
import { syncsUnderLogins } from "./logins.ts";
import { median, say, thousands } from "./report.ts";
import { lonely, longestTurn, million } from "./storage.ts";

/**
 * `npm run bench`: QoS 0 fan-in and durable QoS 1, side by side with mosquitto when it is on the PATH. The brokers take turns, round by round, so
 * that a machine whose speed drifts is the same for both; medians and their ratio are printed, and one JSON line for comparing by hand.
 * `npm run bench -- NAME...` runs some: speed, million, lonely, turn, logins.
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
    name: "QoS 0 fan-in, 10 publishers to 1 subscriber, 100 B",
    load: { mode: "fan-in-qos0", publishers: 10, payloadBytes: 100, window: 0 },
    note: "messages that reach the subscriber",
  },
  {
    name: "QoS 1 durable, 100 publishers, 10 in flight each, 200 B",
    load: { mode: "qos1", publishers: 100, payloadBytes: 200, window: 10 },
    note: "PUBACKs; tidegate: each after fdatasync, an uplink that is down keeps all of it; mosquitto: no disk at all",
  },
];

interface Broker {
  readonly name: string;
  start(port: number): Promise<void>;
  stop(): Promise<void>;
}

function tidegate(durable: boolean): Broker {
  let gateway: GatewayProcess | undefined;
  return {
    name: "tidegate",
    async start(port) {
      gateway = await GatewayProcess.create(gatewayConfig(port, durable));
      await gateway.start();
    },
    async stop() {
      await gateway?.remove();
    },
  };
}

/** Durable: an uplink whose cloud is never there takes everything, so each message is on disk before its PUBACK. */
function gatewayConfig(port: number, durable: boolean): string {
  const uplink = `
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:1
    queue: { maxBytes: 6 GiB }
    forward: [ { topic: "bench/sensor/#", to: "{topic}", qos: 1 } ]
`;
  return `
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
storage: { maxBytes: 8 GiB, minFreeBytes: 64 MiB }
${durable ? uplink : ""}`;
}

function mosquitto(): Broker {
  let peer: PeerProcess | undefined;
  let dir = "";
  return {
    name: "mosquitto",
    async start(port) {
      dir = await mkdtemp(join(tmpdir(), "tidegate-bench-"));
      const file = join(dir, "mosquitto.conf");
      await writeFile(
        file,
        `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\nuser root\n`,
      );
      peer = startPeer("mosquitto", ["-c", file]);
      await until("mosquitto listens", () => peer?.output().includes("running"));
    },
    async stop() {
      await peer?.stop("SIGKILL");
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function measure(broker: Broker, load: Case["load"]): Promise<number> {
  const [port = 0] = await freePorts(1);
  await broker.start(port);
  try {
    return (await runLoad({ ...load, port, seconds })).perSecond;
  } finally {
    await broker.stop();
  }
}

const hasMosquitto = spawnSync("which", ["mosquitto"], { env: { PATH: peerPath } }).status === 0;
if (!hasMosquitto) say("mosquitto is not on the PATH: tidegate alone (apt-get install mosquitto)");

say(
  `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${rounds} rounds of ${seconds} s, brokers in turn; medians [min - max]`,
);

async function speed(): Promise<Array<Record<string, unknown>>> {
  const report: Array<Record<string, unknown>> = [];
  for (const { name, load, note } of cases) {
    const brokers = [tidegate(load.mode === "qos1"), ...(hasMosquitto ? [mosquitto()] : [])];
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
    const figures = [...rates].map(([broker, values]) => [broker, values.map(Math.round)]);
    report.push({ name, ...Object.fromEntries(figures) });
  }
  return report;
}

const all = { speed, million, lonely, turn: longestTurn, logins: syncsUnderLogins };
const chosen = process.argv.slice(2);
const report: unknown[] = [];
for (const [name, run] of Object.entries(all))
  if (chosen.length === 0 || chosen.includes(name)) report.push(await run());
say(`\n${JSON.stringify({ node: process.version, cores: cpus().length, rounds, seconds, report })}`);
