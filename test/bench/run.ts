import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { type PeerProcess, peerPath, startPeer } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import type { LoadOptions, LoadResult } from "./load.ts";

/**
 * `npm run bench`: QoS 0 fan-in and durable QoS 1, side by side with mosquitto when it is on the PATH. The brokers take turns, round by round, so
 * that a machine whose speed drifts is the same for both; medians and their ratio are printed, and one JSON line for comparing by hand.
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
    const options: LoadOptions = { ...load, port, seconds };
    const child = spawn(
      process.execPath,
      ["--import", "tsx", join(import.meta.dirname, "load.ts"), JSON.stringify(options)],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    let output = "";
    child.stdout.on("data", (chunk) => (output += chunk));
    await once(child, "close");
    return (JSON.parse(output) as LoadResult).perSecond;
  } finally {
    await broker.stop();
  }
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
const thousands = (value: number): string => `${(value / 1000).toFixed(1)}k/s`;

const say = (line: string): unknown => process.stdout.write(`${line}\n`);

const hasMosquitto = spawnSync("which", ["mosquitto"], { env: { PATH: peerPath } }).status === 0;
if (!hasMosquitto) say("mosquitto is not on the PATH: tidegate alone (apt-get install mosquitto)");

say(
  `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${rounds} rounds of ${seconds} s, brokers in turn; medians [min - max]`,
);
const report: Array<Record<string, unknown>> = [];
for (const { name, load, note } of cases) {
  const brokers = [tidegate(load.mode === "qos1"), ...(hasMosquitto ? [mosquitto()] : [])];
  const rates = new Map<string, number[]>(brokers.map((broker) => [broker.name, []]));
  for (let round = 0; round < rounds; round += 1)
    for (const broker of brokers) rates.get(broker.name)?.push(await measure(broker, load));
  say(`\n${name}\n  (${note})`);
  for (const [broker, values] of rates)
    say(
      `  ${broker.padEnd(10)} ${thousands(median(values))} [${thousands(Math.min(...values))} - ${thousands(Math.max(...values))}]`,
    );
  const [ours = 0, theirs] = [...rates.values()].map(median);
  if (theirs !== undefined) say(`  ratio      ${(ours / theirs).toFixed(2)} x mosquitto`);
  report.push({ name, ...Object.fromEntries([...rates].map(([broker, values]) => [broker, values.map(Math.round)])) });
}
say(`\n${JSON.stringify({ node: process.version, cores: cpus().length, rounds, seconds, report })}`);
