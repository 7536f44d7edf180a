import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { type PeerProcess, peerPath, startPeer } from "../helpers/peers.ts";
import { until } from "../helpers/wait.ts";

/** The brokers that are measured side by side, each on a port of 127.0.0.1. */
export interface Broker {
  readonly name: string;
  /** @param port on 127.0.0.1 @param prefix a command that becomes it, such as `pinned(0)` */
  start(port: number, prefix?: readonly string[]): Promise<void>;
  stop(): Promise<void>;
  /** Of its process. */
  pid(): number;
}

export const has = (program: string): boolean =>
  spawnSync("which", [program], { env: { PATH: peerPath } }).status === 0;

/** A prefix that keeps a command on one core, where there is `taskset`. */
export const pinned = (core: number): readonly string[] => (has("taskset") ? ["taskset", "-c", String(core)] : []);

/** Durable: an uplink whose cloud is never there takes everything, so each message is on disk before its PUBACK. */
const deadUplink = `
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:1
    queue: { maxBytes: 6 GiB }
    forward: [ { topic: "bench/sensor/#", to: "{topic}", qos: 1 } ]
`;

/** What the systemd unit gives the gateway, which is how it is installed: the C library's allocator gives memory back more readily with it. */
export function unitEnvironment(): NodeJS.ProcessEnv {
  const unit = readFileSync(join(import.meta.dirname, "../../systemd/tidegate.service"), "utf8");
  const pairs = /^Environment=(.+)$/m.exec(unit)?.[1]?.split(" ") ?? [];
  return Object.fromEntries(pairs.map((pair) => pair.split("=", 2)));
}

export interface TidegateBroker extends Broker {
  /** Its process, once it was started. */
  gateway(): GatewayProcess;
}

/** With the limits of the default config, but for connections of one address: all of a benchmark's have the same. */
export function tidegate(options: { durable: boolean; env?: NodeJS.ProcessEnv }): TidegateBroker {
  let gateway: GatewayProcess | undefined;
  return {
    name: "tidegate",
    gateway() {
      if (gateway === undefined) throw new Error("not started");
      return gateway;
    },
    async start(port, prefix = []) {
      gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ], limits: { maxConnectionsPerAddress: 10000 } }
http: { listen: false }
storage: { maxBytes: 8 GiB, minFreeBytes: 64 MiB }
${options.durable ? deadUplink : ""}`);
      gateway.prefix = prefix;
      await gateway.start(options.env);
    },
    async stop() {
      await gateway?.remove();
    },
    pid: () => gateway?.pid ?? -1,
  };
}

/** A program of its own with a folder of its own, which has started when it has printed `ready`. */
function program(
  name: string,
  ready: string,
  command: (port: number, dir: string) => Promise<readonly string[]>,
): Broker {
  let peer: PeerProcess | undefined;
  let dir = "";
  return {
    name,
    async start(port, prefix = []) {
      dir = await mkdtemp(join(tmpdir(), "tidegate-bench-"));
      const [first = "", ...rest] = [...prefix, ...(await command(port, dir))];
      peer = startPeer(first, rest);
      await until(`${name} listens`, () => peer?.output().includes(ready), 20_000);
    },
    async stop() {
      await peer?.stop("SIGKILL");
      await rm(dir, { recursive: true, force: true });
    },
    pid: () => peer?.child.pid ?? -1,
  };
}

async function inFile(dir: string, text: string): Promise<string> {
  const file = join(dir, "broker.conf");
  await writeFile(file, text);
  return file;
}

/** Without any disk. */
export const mosquitto = (): Broker =>
  program("mosquitto", "running", async (port, dir) => {
    const lines = [
      `listener ${port} 127.0.0.1`,
      "allow_anonymous true",
      "persistence false",
      "max_inflight_messages 0",
      "user root",
    ];
    return ["mosquitto", "-c", await inFile(dir, `${lines.join("\n")}\n`)];
  });

export const natsServer = (): Broker =>
  program("nats-server", "Server is ready", async (port, dir) => [
    "nats-server",
    "-c",
    await inFile(
      dir,
      `server_name: bench\nlisten: "127.0.0.1:-1"\njetstream { store_dir: "${dir}" }\nmqtt { listen: "127.0.0.1:${port}" }\n`,
    ),
  ]);

const script = (name: string, file: string, ...more: string[]): Broker =>
  program(name, "running", async (port) => [process.execPath, join(import.meta.dirname, file), String(port), ...more]);

export const aedes = (): Broker => script("aedes", "aedesBroker.mjs");
/** What this machine gives to a broker in JavaScript that does nothing but forward, packet by packet. */
export const bare = (): Broker => script("bare", "bareBroker.mjs");
/** The same, and packets that follow each other with the same topic go on as one piece. */
export const bareRuns = (): Broker => script("bare, in runs", "bareBroker.mjs", "runs");
/** What Node's own sockets cost. */
export const bareSockets = (): Broker => script("bare sockets", "bareSockets.mjs");
