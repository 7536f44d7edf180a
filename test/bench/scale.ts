import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCertificate } from "../helpers/certificate.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { type Broker, bareSockets, has, mosquitto, pinned } from "./brokers.ts";
import { runLoad } from "./loadProcess.ts";
import { cpuSeconds } from "./procfs.ts";
import { type BenchReport, type Figure, figure } from "./record.ts";
import { median, say, thousands } from "./report.ts";
import type { Connected } from "./scaleClients.ts";
import { idle, quiet, small, start } from "./scaleFootprint.ts";
import { ScaleClients } from "./scaleProcess.ts";

/** Many of everything: retained values, subscriptions, connections; and what the gateway takes while it does little or has little. */

const retainedCount = 100_000;
const rounds = 5;

export interface ScaleStand {
  readonly gateway: GatewayProcess;
  readonly port: number;
  readonly clients: ScaleClients;
}

/** The gateway on one core, its clients on the other. @param listener more keys of it */
async function stand(listener = "", scheme = "mqtt"): Promise<ScaleStand> {
  const [port = 0] = await freePorts(1);
  const gateway = await GatewayProcess.create(`
mqtt:
  listeners: [ { url: "${scheme}://127.0.0.1:${port}"${listener} } ]
  limits: { maxConnectionsPerAddress: 10000 }
http: { listen: false }
storage: { maxBytes: 1 GiB, minFreeBytes: 64 MiB }
`);
  gateway.prefix = pinned(0);
  await gateway.start();
  return { gateway, port, clients: new ScaleClients(pinned(1)) };
}

async function end({ gateway, clients }: ScaleStand): Promise<void> {
  await clients.stop();
  await gateway.remove();
}

const ms = (value: number): string => `${value.toFixed(1)} ms`;
const pause = (time: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, time));

async function retained(): Promise<Figure[]> {
  const set = await stand();
  const { port, clients } = set;
  const subscribers = new ScaleClients(pinned(1)); // another process: reading 14 MB must not hold up the pair's clock
  try {
    await runLoad({ mode: "retained", port, messages: retainedCount, payloadBytes: 100 });
    await clients.ask("pair", { port, perSecond: 1000 });
    await subscribers.ask("retainedAll", { port, count: retainedCount }); // warm
    const quiet: number[][] = [];
    const serving: number[][] = [];
    const took: number[] = [];
    const cpuMs: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      await clients.ask("latency");
      await pause(1000);
      const before = await clients.ask("latency");
      const cpuBefore = cpuSeconds(set.gateway.pid);
      took.push(await subscribers.ask("retainedAll", { port, count: retainedCount }));
      cpuMs.push((cpuSeconds(set.gateway.pid) - cpuBefore) * 1000);
      const during = await clients.ask("latency");
      quiet.push([before.p50, before.p99, before.max]);
      serving.push([during.p50, during.p99, during.max]);
    }
    const of = (all: number[][]): string =>
      [0, 1, 2].map((at) => ms(median(all.map((each) => each[at] ?? Number.NaN)))).join(", ");
    say(`\n${retainedCount.toLocaleString("en")} retained values of 100 B for a new subscriber of #, ${rounds} times`);
    say(
      `  all there  ${ms(median(took))} [${ms(Math.min(...took))} - ${ms(Math.max(...took))}], of the broker's processor ${ms(median(cpuMs))}`,
    );
    say(`  a pair of others at 1,000/s, p50, p99, max: quiet ${of(quiet)}; meanwhile ${of(serving)}`);
    const p99 = (all: number[][]): number[] => all.map((each) => each[1] ?? Number.NaN);
    return [
      figure("retained, all there", "ms", took),
      figure("retained, processor", "ms", cpuMs),
      figure("retained, p99 of a pair, quiet", "ms", p99(quiet)),
      figure("retained, p99 of a pair, meanwhile", "ms", p99(serving)),
    ];
  } finally {
    await subscribers.stop();
    await end(set);
  }
}

/** CPU of the broker for a message, µs, with so many topics in turn. */
async function matching({ gateway, port, clients }: ScaleStand, topics: number): Promise<number> {
  const messages = 200_000;
  const before = cpuSeconds(gateway.pid);
  await clients.ask("flood", { port, messages, topics });
  return ((cpuSeconds(gateway.pid) - before) / messages) * 1e6;
}

const known = 1000;
/** Ten times what the topic cache holds. */
const unknown = 100_000;

async function subscriptions(): Promise<Figure[]> {
  say("\nCPU of the broker for a message of 100 B that nobody wants, by wildcard subscriptions; medians");
  const report: Figure[] = [];
  const sets: Array<{ count: number; set: ScaleStand }> = [];
  try {
    for (const count of [100, 10_000, 100_000]) {
      const set = await stand();
      sets.push({ count, set });
      await set.clients.ask("subscribeAll", { port: set.port, count });
      for (const topics of [known, unknown]) await matching(set, topics); // warm
    }
    const seen = sets.map(() => ({ cached: [] as number[], walked: [] as number[] }));
    for (let round = 0; round < rounds; round += 1) {
      for (const [at, { set }] of sets.entries()) {
        seen[at]?.cached.push(await matching(set, known));
        seen[at]?.walked.push(await matching(set, unknown));
      }
    }
    for (const [at, { count }] of sets.entries()) {
      const { cached = [], walked = [] } = seen[at] ?? {};
      const label = count.toLocaleString("en").padStart(9);
      say(
        `  ${label}  ${median(cached).toFixed(2)} µs with the topic in the cache, ${median(walked).toFixed(2)} µs without`,
      );
      report.push(figure(`${label.trim()} subscriptions, in the cache`, "µs", cached));
      report.push(figure(`${label.trim()} subscriptions, not in it`, "µs", walked));
    }
    return report;
  } finally {
    for (const { set } of sets) await end(set);
  }
}

interface Connecting extends Connected {
  /** CPU of the broker for each, µs: what a busy machine does not change. */
  readonly brokerUs: number;
  /** Of their core, while it went on. */
  readonly brokerShare: number;
  readonly clientsShare: number;
}

const connecting = 5000;

async function connect(
  pid: number,
  port: number,
  clients: ScaleClients,
  inTurn: number,
  ca?: string,
): Promise<Connecting> {
  const before = [cpuSeconds(pid), cpuSeconds(clients.pid)];
  const done = await clients.ask("connect", { port, count: connecting, inTurn, ...(ca === undefined ? {} : { ca }) });
  const share = (at: number, now: number): number => (now - (before[at] ?? 0)) / done.seconds;
  const brokerUs = ((cpuSeconds(pid) - (before[0] ?? 0)) / done.opened) * 1e6;
  return { ...done, brokerUs, brokerShare: share(0, cpuSeconds(pid)), clientsShare: share(1, cpuSeconds(clients.pid)) };
}

function tellConnecting(what: string, all: readonly Connecting[]): void {
  const of = (pick: (one: Connecting) => number): number => median(all.map(pick));
  const rates = all.map(({ opened, seconds }) => opened / seconds);
  const refused = all.reduce((sum, one) => sum + one.refused, 0);
  const percent = (share: number): string => `${Math.round(share * 100)} %`;
  say(
    `  ${what.padEnd(32)} ${thousands(median(rates))} [${thousands(Math.min(...rates))} - ${thousands(Math.max(...rates))}], ${refused} refused; ` +
      `broker ${Math.round(of((one) => one.brokerUs))} µs each, ${percent(of((one) => one.brokerShare))} of its core, clients ${percent(of((one) => one.clientsShare))} of theirs`,
  );
}

/** The gateway, and for comparison what accepts as well: one round each in turn. */
async function connects(): Promise<Figure[]> {
  say(`\n${connecting} clients connect, to the last CONNACK; ${rounds} rounds, brokers in turn`);
  const folder = await mkdtemp(join(tmpdir(), "tidegate-bench-"));
  const report: Record<string, Connecting[]> = {};
  const add = (what: string, one: Connecting): void => {
    report[what] = [...(report[what] ?? []), one];
  };
  try {
    const { ca, cert, key } = await makeCertificate(folder);
    const authority = await readFile(ca, "utf8");
    const others: Broker[] = [bareSockets(), ...(has("mosquitto") ? [mosquitto()] : [])];
    for (let round = 0; round < rounds; round += 1) {
      for (const inTurn of [connecting, 100]) {
        const how = inTurn === connecting ? "all at once" : `${inTurn} under way`;
        for (const secured of [false, true]) {
          const set = secured ? await stand(`, tls: { cert: ${cert}, key: ${key} }`, "mqtts") : await stand();
          const { gateway, port, clients } = set;
          const ours = `tidegate${secured ? " TLS" : ""}, ${how}`;
          add(
            ours,
            await connect(gateway.pid, port, clients, inTurn, secured ? authority : undefined).finally(() => end(set)),
          );
        }
        for (const other of others) add(`${other.name}, ${how}`, await connectOther(other, inTurn));
      }
    }
    for (const [what, all] of Object.entries(report)) tellConnecting(what, all);
    return Object.entries(report).map(([what, all]) =>
      figure(
        `connecting, ${what}`,
        "clients/s",
        all.map(({ opened, seconds }) => opened / seconds),
        "more",
      ),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function connectOther(broker: Broker, inTurn: number): Promise<Connecting> {
  const [port = 0] = await freePorts(1);
  await broker.start(port, pinned(0));
  const clients = new ScaleClients(pinned(1));
  try {
    return await connect(broker.pid(), port, clients, inTurn);
  } finally {
    await clients.stop();
    await broker.stop();
  }
}

const parts = { retained, subscriptions, connects, idle, small, start, quiet };

/** @param only names of parts; none: all of them */
export async function scale(only: readonly string[]): Promise<BenchReport> {
  const figures: Figure[] = [];
  for (const [name, run] of Object.entries(parts))
    if (only.length === 0 || only.includes(name)) figures.push(...(await run()));
  return { name: "scale", figures };
}
