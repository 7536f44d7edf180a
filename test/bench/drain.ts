import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mqtt from "mqtt-packet";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { startPeer } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { has } from "./brokers.ts";
import { nowUs, type PortReport } from "./cloud.ts";
import { CloudProcess } from "./cloudProcess.ts";
import { runLoad } from "./loadProcess.ts";
import type { BenchReport, Figure } from "./record.ts";
import { median, say, thousands } from "./report.ts";

/** How a backlog gets to the cloud: as fast as it goes, beside mosquitto's bridge; with fresh readings beside it; at a given pace. */

const scale = Number(process.env["TIDEGATE_BENCH_MESSAGES"] ?? 1_000_000);
const freshEveryMs = 2;
const pacedSeconds = 10;

interface Subject {
  readonly pid: number;
  stop(): Promise<void>;
}

const gatewayConfig = (port: number, uplinks: string): string => `
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ], limits: { maxConnectionsPerAddress: 10000 } }
http: { listen: false }
storage: { maxBytes: 8 GiB, minFreeBytes: 64 MiB }
uplinks:
${uplinks}`;

const uplinkTo = (name: string, cloud: number, drain = "{}", more = ""): string => `
  - name: ${name}
    url: mqtt://127.0.0.1:${cloud}
    queue: { maxBytes: 2 GiB }
    backoff: { min: 200ms, max: 500ms }
    drain: ${drain}
    ${more}
    forward: [ { topic: "bench/#", to: "{topic}", qos: 1 } ]
`;

async function tidegate(port: number, uplinks: string): Promise<Subject> {
  const gateway = await GatewayProcess.create(gatewayConfig(port, uplinks));
  await gateway.start();
  return { pid: gateway.pid, stop: () => gateway.remove() };
}

/** Its bridge, with all limits that would lose messages taken away, without any disk, and as many in flight as we have. */
async function mosquittoBridge(port: number, cloud: number): Promise<Subject> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-bench-"));
  const file = join(dir, "mosquitto.conf");
  const lines = [
    ...[`listener ${port} 127.0.0.1`, "allow_anonymous true", "persistence false", "user root"],
    ...["max_queued_messages 0", "max_queued_bytes 0", "max_inflight_messages 1000"],
    ...["connection cloud", `address 127.0.0.1:${cloud}`, "topic bench/# out 1", "cleansession false"],
    ...["restart_timeout 1", "notifications false", "try_private false"],
  ];
  await writeFile(file, `${lines.join("\n")}\n`);
  const peer = startPeer("mosquitto", ["-c", file]);
  await until("mosquitto listens", () => peer.output().includes("running"), 20_000);
  return {
    pid: peer.child.pid ?? -1,
    async stop() {
      await peer.stop("SIGKILL");
      await rm(dir, { recursive: true, force: true });
    },
  };
}

const highestRss = (pid: number): number =>
  Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024;

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

interface Drained {
  readonly perSecond: number;
  readonly rss: number;
  readonly report: PortReport;
}

/** Fills a subject while the cloud is away, then lets it drain. @param beside begins when the first message has come, and is ended with the backlog */
async function drained(
  start: (port: number, cloud: number) => Promise<Subject>,
  beside: (port: number) => Promise<() => void> = () => Promise.resolve(() => {}),
): Promise<Drained> {
  const [port = 0, cloudPort = 0] = await freePorts(2);
  const cloud = new CloudProcess([cloudPort]);
  const subject = await start(port, cloudPort);
  try {
    await runLoad({ mode: "qos1", port, publishers: 100, window: 20, messages: scale });
    await cloud.open();
    await until("the link is up", async () => (await cloud.messages()) > 0, 30_000);
    const end = await beside(port);
    const report = await until(
      "all of it is in the cloud",
      async () => {
        await pause(90); // asking costs the machine, too
        const [now] = await cloud.report();
        return now!.messages - now!.fresh.messages >= scale && now;
      },
      300_000,
    );
    end();
    const { firstUs, lastUs, messages } = report;
    return { perSecond: (messages * 1e6) / (lastUs - firstUs), rss: highestRss(subject.pid), report };
  } finally {
    await subject.stop();
    await cloud.stop();
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A sensor that publishes each `freshEveryMs`, QoS 1, with the time in it. */
async function freshReadings(port: number): Promise<() => void> {
  const socket = connect({ host: "127.0.0.1", port, noDelay: true });
  socket.write(
    mqtt.generate({
      cmd: "connect",
      clientId: "fresh",
      protocolVersion: 4,
      protocolId: "MQTT",
      clean: true,
      keepalive: 0,
    }),
  );
  await new Promise((resolve) => socket.once("data", resolve));
  socket.resume();
  const payload = Buffer.alloc(200, 120);
  let messageId = 0;
  const timer = setInterval(() => {
    messageId = (messageId % 60_000) + 1;
    payload.writeDoubleBE(nowUs());
    socket.write(
      mqtt.generate({ cmd: "publish", topic: "bench/fresh", payload, qos: 1, retain: false, dup: false, messageId }),
    );
  }, freshEveryMs);
  return () => {
    clearInterval(timer);
    socket.destroy();
  };
}

async function asFastAsItGoes(rounds: number): Promise<Figure[]> {
  const starts = new Map<string, (port: number, cloud: number) => Promise<Subject>>();
  starts.set("tidegate", (port, cloud) => tidegate(port, uplinkTo("cloud", cloud)));
  // The same bytes as the bridge sends: nothing beside the payload.
  starts.set("without meta", (port, cloud) => tidegate(port, uplinkTo("cloud", cloud, "{}", "meta: []")));
  if (has("mosquitto")) starts.set("mosquitto", mosquittoBridge);
  else say("mosquitto is not on the PATH: tidegate alone (apt-get install mosquitto)");
  const runs = new Map([...starts.keys()].map((name) => [name, [] as Drained[]]));
  for (let round = 0; round < rounds; round += 1)
    for (const [name, start] of starts) runs.get(name)!.push(await drained(start));
  say(
    `\n${scale.toLocaleString("en")} messages of 200 B waiting, drained to a QoS 1 cloud (tidegate: from disk, with its user properties and without; mosquitto: from RAM)`,
  );
  const medians = new Map<string, number>();
  for (const [name, some] of runs) {
    const rates = some.map(({ perSecond }) => perSecond);
    medians.set(name, median(rates));
    const rss = Math.max(...some.map((one) => one.rss));
    const range = `[${thousands(Math.min(...rates))} - ${thousands(Math.max(...rates))}]`;
    say(`  ${name.padEnd(12)} ${thousands(median(rates))} ${range}, highest RSS ${megabytes(rss)}`);
  }
  const theirs = medians.get("mosquitto");
  const ratioOf = (name: string): number | undefined => theirs && medians.get(name)! / theirs;
  const [ratio, bare] = ["tidegate", "without meta"].map(ratioOf);
  if (ratio !== undefined && bare !== undefined)
    say(`  ratio        ${ratio.toFixed(2)} x mosquitto's bridge, without meta ${bare.toFixed(2)} x`);
  return [...runs].flatMap(([name, some]): Figure[] => [
    {
      name: `speed, ${name}`,
      unit: "msg/s",
      better: "more",
      values: some.map(({ perSecond }) => Math.round(perSecond)),
    },
    { name: `highest RSS, ${name}`, unit: "B", better: "less", values: some.map(({ rss }) => rss) },
    {
      ...{ name: `bytes for a message, ${name}`, unit: "B", better: "less" },
      values: some.map(({ report }) => Math.round(report.bytes / report.messages)),
    },
    {
      ...{ name: `sent twice, ${name}`, unit: "messages", better: "less" },
      values: some.map(({ report }) => report.messages - scale),
    },
  ]);
}

async function withFreshOnes(): Promise<Figure[]> {
  const start = (port: number, cloud: number) => tidegate(port, uplinkTo("cloud", cloud, "{ liveShare: 0.2 }"));
  const { perSecond, rss, report } = await drained(start, freshReadings);
  const { messages, p50, p99, max } = report.fresh;
  say(`\nThe same with liveShare: 0.2, a fresh reading each ${freshEveryMs} ms: from its publish to the cloud`);
  say(`  ${messages} of them: p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, max ${max.toFixed(1)} ms`);
  say(`  drain      ${thousands(perSecond)}, highest RSS ${megabytes(rss)}`);
  const figure = (name: string, value: number): Figure => ({
    name: `fresh, ${name}`,
    unit: "ms",
    better: "less",
    values: [value],
  });
  return [
    ...[figure("p50", p50), figure("p99", p99), figure("max", max)],
    { name: "speed with fresh ones beside it", unit: "msg/s", better: "more", values: [Math.round(perSecond)] },
  ];
}

/** Three uplinks at once, each at its pace; measured for ten seconds, from the second one on. */
async function paced(): Promise<Figure[]> {
  const paces = [
    { drain: "{ maxPerSecond: 500 }", wanted: 500, of: "messages" },
    { drain: "{ maxPerSecond: 5000 }", wanted: 5000, of: "messages" },
    { drain: "{ maxBytesPerSecond: 1 MiB }", wanted: 1024 * 1024, of: "bytes" },
  ] as const;
  const [port = 0, ...ports] = await freePorts(1 + paces.length);
  const cloud = new CloudProcess(ports);
  const uplinks = paces.map(({ drain }, at) => uplinkTo(`cloud${at}`, ports[at]!, drain));
  const subject = await tidegate(port, uplinks.join(""));
  try {
    await runLoad({ mode: "qos1", port, publishers: 100, window: 20, messages: 5000 * (pacedSeconds + 5) });
    await cloud.open();
    await until("all links are up", async () => (await cloud.report()).every(({ messages }) => messages > 0), 30_000);
    await pause(1000);
    const from = await cloud.report();
    await pause(pacedSeconds * 1000);
    const to = await cloud.report();
    say(`\nPaced drains, ${pacedSeconds} s after the first one`);
    return paces.map(({ drain, wanted, of }, at): Figure => {
      const seconds = (to[at]!.nowUs - from[at]!.nowUs) / 1e6;
      const perSecond = (to[at]![of] - from[at]![of]) / seconds;
      const offBy = (perSecond / wanted - 1) * 100;
      say(`  ${drain.padEnd(32)} ${perSecond.toFixed(1)} ${of}/s, off by ${offBy.toFixed(2)} %`);
      return { name: `paced ${drain}, off by`, unit: "%", better: "less", values: [Math.abs(offBy)] };
    });
  } finally {
    await subject.stop();
    await cloud.stop();
  }
}

/** @param rounds of the comparison; the rest is run once */
export async function drain(rounds: number, parts: readonly string[]): Promise<BenchReport> {
  const wants = (part: string): boolean => parts.length === 0 || parts.includes(part);
  return {
    name: "drain",
    figures: [
      ...(wants("speed") ? await asFastAsItGoes(rounds) : []),
      ...(wants("fresh") ? await withFreshOnes() : []),
      ...(wants("paced") ? await paced() : []),
    ],
  };
}
