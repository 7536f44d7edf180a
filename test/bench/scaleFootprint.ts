import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { bareSockets } from "./brokers.ts";
import { cpuSeconds, settledKb, statusKb, wakeUps } from "./procfs.ts";
import { type Figure, figure } from "./record.ts";
import { median, say } from "./report.ts";
import { ScaleClients } from "./scaleProcess.ts";

/** What the gateway takes: memory of idle clients, all of it in little memory, the time of a start, the processor while nothing happens. */

const idleClients = 10_000;
const idleRounds = 3;

async function make(port: number, more = ""): Promise<GatewayProcess> {
  const [httpPort = 0] = await freePorts(1);
  return await GatewayProcess.create(`
mqtt:
  listeners: [ { url: "mqtt://127.0.0.1:${port}" } ]
  limits: { maxConnectionsPerAddress: 10000 }
http: { listen: "http://127.0.0.1:${httpPort}" }
storage: { maxBytes: 1 GiB, minFreeBytes: 64 MiB }
${more}`);
}

/** Growth for each client, kB, user space: the kernel's socket buffers are not the process's. */
async function growth(pid: number, port: number): Promise<{ before: number; each: number }> {
  const clients = new ScaleClients([]);
  try {
    const before = await settledKb(pid);
    const { opened, refused } = await clients.ask("connect", { port, count: idleClients, inTurn: 50, subscribe: true });
    if (opened !== idleClients) throw new Error(`${refused} of ${idleClients} clients were refused (ulimit -n?)`);
    return { before, each: ((await settledKb(pid)) - before) / idleClients };
  } finally {
    await clients.stop();
  }
}

export async function idle(): Promise<Figure[]> {
  const ours: number[] = [];
  const bare: number[] = [];
  const started: number[] = [];
  for (let round = 0; round < idleRounds; round += 1) {
    const [port = 0, barePort = 0] = await freePorts(2);
    const gateway = await make(port);
    const ruler = bareSockets();
    try {
      await gateway.start();
      await ruler.start(barePort);
      const [mine, ruled] = await Promise.all([growth(gateway.pid, port), growth(ruler.pid(), barePort)]);
      ours.push(mine.each);
      started.push(mine.before);
      bare.push(ruled.each);
    } finally {
      await ruler.stop();
      await gateway.remove();
    }
  }
  const told = (values: readonly number[]): string =>
    `${median(values).toFixed(2)} kB [${Math.min(...values).toFixed(2)} - ${Math.max(...values).toFixed(2)}]`;
  say(
    `\n${idleClients.toLocaleString("en")} idle clients with a subscription each: growth of VmRSS for each; ${idleRounds} rounds`,
  );
  say(`  tidegate          ${told(ours)}, from ${(median(started) / 1000).toFixed(1)} MB`);
  say(`  Node's own socket ${told(bare)}`);
  return [
    figure("idle client", "kB", ours),
    figure("idle client, Node's own socket", "kB", bare),
    figure("before them", "kB", started),
  ];
}

/** A memory cgroup, version 1, with a limit; undefined where none can be made. */
function memoryGroup(bytes: number): string | undefined {
  const folder = `/sys/fs/cgroup/memory/tidegate-bench-${process.pid}`;
  try {
    mkdirSync(folder);
    writeFileSync(join(folder, "memory.limit_in_bytes"), String(bytes));
    return folder;
  } catch {
    return undefined;
  }
}

const limitBytes = 128 * 1024 * 1024;

export async function small(): Promise<Figure[]> {
  const [port = 0, cloudPort = 0] = await freePorts(2);
  const uplink = `uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    version: 4
    backoff: { min: 200ms, max: 500ms }
    forward: [ { topic: "bench/sensor/#", to: "{topic}", qos: 1 } ]
`;
  const gateway = await make(port, uplink);
  const clients = new ScaleClients([]);
  const group = memoryGroup(limitBytes);
  try {
    const enter = `echo $$ > ${group}/cgroup.procs && exec "$@"`;
    if (group !== undefined) gateway.prefix = ["sh", "-c", enter, "sh"];
    await gateway.start({ NODE_OPTIONS: "--max-old-space-size=48" });
    const sent = await clients.ask("mixed", { port, pairs: 800, kept: 200, messages: 300 });
    const end = await clients.ask("mixedAfterwards", { port, cloudPort });
    const highest = statusKb(gateway.pid, "VmHWM");
    const ofGroup = (file: string): string => (group === undefined ? "" : readFileSync(join(group, file), "utf8"));
    const killed = Number(/oom_kill (\d+)/.exec(ofGroup("memory.oom_control"))?.[1] ?? 0);
    say("\n2,000 clients, QoS 0, 1 and 2, 200 persistent sessions, an uplink that is down; --max-old-space-size=48");
    say(
      `  limit      ${group === undefined ? "none: no memory cgroup can be made here" : "128 MiB by cgroup, page cache and kernel included"}`,
    );
    say(
      `  came in    ${sent.acknowledged.toLocaleString("en")} acknowledged at ${Math.round(sent.acknowledged / sent.seconds)}/s; QoS 0: ${sent.qos0Came} of ${sent.qos0Sent}`,
    );
    say(
      `  afterwards ${end.missing} missing, ${end.twice} twice at QoS 2, ${end.inCloud.toLocaleString("en")} in the cloud; ${killed} killed`,
    );
    say(`  highest    ${(highest / 1024).toFixed(1)} MiB resident`);
    if (end.missing > 0 || end.twice > 0 || killed > 0)
      throw new Error("something acknowledged is missing, or came twice");
    return [
      figure("in 128 MiB, came in", "msg/s", [sent.acknowledged / sent.seconds], "more"),
      figure("in 128 MiB, highest", "MiB", [highest / 1024]),
    ];
  } finally {
    await clients.stop();
    await gateway.remove();
    if (group !== undefined) rmdirSync(group);
  }
}

const starts = 10;

async function startOfNode(): Promise<number> {
  const fromMs = performance.now();
  await once(spawn(process.execPath, ["-e", "0"], { stdio: "ignore" }), "exit");
  return performance.now() - fromMs;
}

export async function start(): Promise<Figure[]> {
  const [port = 0] = await freePorts(1);
  const gateway = await make(port);
  const ready: number[] = [];
  const node: number[] = [];
  try {
    for (let round = -1; round < starts; round += 1) {
      const bare = await startOfNode();
      const fromMs = performance.now();
      await gateway.start();
      const took = performance.now() - fromMs;
      await gateway.end("SIGTERM");
      if (round < 0) continue; // until the files are in the page cache
      node.push(bare);
      ready.push(took);
    }
  } finally {
    await gateway.remove();
  }
  const more = median(ready) - median(node);
  say(
    `\nStart to ready, median of ${starts}: ${median(ready).toFixed(0)} ms, of which Node's own start ${median(node).toFixed(0)} ms: ${more.toFixed(0)} ms more`,
  );
  return [
    figure("start to ready", "ms", ready),
    figure("start of Node", "ms", node),
    figure("more than Node", "ms", [more]),
  ];
}

const quietClients = 100;
const quietSeconds = 60;

interface Quiet {
  /** Of a core. */
  readonly percent: number;
  readonly wakesPerSecond: number;
}

/** What a broker takes while its clients do nothing but ping. */
async function quietly(pid: number, port: number): Promise<Quiet> {
  const clients = new ScaleClients([]);
  try {
    const ask = { port, count: quietClients, inTurn: 10, subscribe: true, keepAliveSeconds: 60 };
    await clients.ask("connect", ask);
    await settledKb(pid); // what a start leaves to be done later is done
    const before = { cpu: cpuSeconds(pid), wakes: wakeUps(pid), ms: performance.now() };
    await new Promise((resolve) => setTimeout(resolve, quietSeconds * 1000));
    const seconds = (performance.now() - before.ms) / 1000;
    return {
      percent: ((cpuSeconds(pid) - before.cpu) / seconds) * 100,
      wakesPerSecond: (wakeUps(pid) - before.wakes) / seconds,
    };
  } finally {
    await clients.stop();
  }
}

/** And Node's own sockets after it: what a wake-up costs is the machine's, and most on a virtual one that is quiet. */
export async function quiet(): Promise<Figure[]> {
  const [port = 0, barePort = 0] = await freePorts(2);
  const gateway = await make(port);
  const ruler = bareSockets();
  try {
    await gateway.start();
    const ours = await quietly(gateway.pid, port);
    await gateway.end("SIGTERM");
    await ruler.start(barePort);
    const bare = await quietly(ruler.pid(), barePort);
    const told = ({ percent, wakesPerSecond }: Quiet): string =>
      `${percent.toFixed(3)} % of a core, ${wakesPerSecond.toFixed(1)} wake-ups a second`;
    say(`\n${quietClients} clients at Keep Alive 60 that do nothing but ping, ${quietSeconds} s`);
    say(`  tidegate          ${told(ours)}`);
    say(`  Node's own socket ${told(bare)}`);
    return [
      figure("processor with 100 quiet clients", "%", [ours.percent]),
      figure("processor with 100 quiet clients, Node's own socket", "%", [bare.percent]),
      figure("wake-ups with 100 quiet clients", "/s", [ours.wakesPerSecond]),
    ];
  } finally {
    await ruler.stop();
    await gateway.remove();
  }
}
