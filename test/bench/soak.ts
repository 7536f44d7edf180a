import { readFileSync } from "node:fs";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { pinned, unitEnvironment } from "./brokers.ts";
import { CloudProcess } from "./cloudProcess.ts";
import { runLoad } from "./loadProcess.ts";
import type { BenchReport } from "./record.ts";
import { say } from "./report.ts";
import { runTraffic } from "./routing.ts";
import type { TrafficOptions } from "./traffic.ts";
import { floorsOf, type Growth, growthOf, type Sample, trendReadingsMin } from "./trend.ts";

/**
 * Full load for an hour (TIDEGATE_BENCH_MINUTES): QoS 0, 1 and 2 as fast as they go, kept sessions among them, retained values that are set again
 * and again, sessions that come and go, and an uplink whose cloud does so too. Resident memory is read each second, in the environment of the systemd
 * unit, and judged after the warm-up. test/soak is the one that counts every message.
 */
const minutes = Number(process.env["TIDEGATE_BENCH_MINUTES"] ?? 60);
/** V8 compiles what has become hot until minute 18 (compiled code 3.3 to 4.3 MiB), and the store's tables grow to their size. */
const warmUpMinutes = 20;
/** kB a minute: what a run must tell. 1.2 MB an hour. */
const leak = 20;
/** The cloud is there as long as it is away. */
const cloudMs = 20_000;
/** Memory goes up and down with the cloud: of each time that it was there and was not, the lowest is looked at. */
const floorMinutes = (2 * cloudMs) / 60_000;

const configOf = (port: number, httpPort: number, cloudPort: number): string => `
mqtt:
  listeners: [ { url: "mqtt://127.0.0.1:${port}" } ]
  limits: { maxConnectionsPerAddress: 10000, maxSessions: 20000 }
http: { listen: "http://127.0.0.1:${httpPort}" }
storage: { maxBytes: 2 GiB, minFreeBytes: 64 MiB }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    queue: { maxBytes: 128 MiB }
    backoff: { min: 200ms, max: 500ms }
    forward: [ { topic: "bench/sensor/#", to: "{topic}", qos: 1 } ]
`;

const pairs = (qos: 0 | 1 | 2, window: number, persistent = false): Omit<TrafficOptions, "port" | "seconds"> => {
  return {
    groups: 10,
    publishers: 1,
    subscribers: 1,
    qos,
    window,
    persistent,
    payloadBytes: 100,
    name: `${qos}${persistent}`,
  };
};
const traffics = [pairs(0, 100), pairs(1, 10), pairs(2, 10), pairs(1, 10, true)];

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function cloudComesAndGoes(port: number, ended: () => boolean): Promise<void> {
  while (!ended()) {
    const cloud = new CloudProcess([port]);
    try {
      await cloud.open();
      await pause(cloudMs);
    } finally {
      await cloud.stop();
    }
    await pause(cloudMs);
  }
}

/** Resident memory in kB, each second. */
async function watch(pid: number, ended: () => boolean): Promise<Sample[]> {
  const startMs = performance.now();
  const samples: Sample[] = [];
  let told = 0;
  while (!ended()) {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const kB = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]);
    const value = kB("VmRSS");
    const now = (performance.now() - startMs) / 60_000;
    samples.push({ minutes: now, value });
    if (now >= told) {
      const [all, own] = [value, kB("RssAnon")].map((each) => (each / 1024).toFixed(1));
      say(`  ${now.toFixed(0).padStart(3)} min  ${all} MiB, ${own} without files`);
      told += 1;
    }
    await pause(1000);
  }
  return samples;
}

/** Sums of counters of /metrics whose series match. */
async function counters(httpPort: number, series: RegExp): Promise<Map<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
  const found = [...text.matchAll(/^(\S+(?:\{[^}]*\})?) (\d+)$/gm)].map(
    ([, name = "", value]) => [name, Number(value)] as const,
  );
  return new Map(found.filter(([name, value]) => series.test(name) && value > 0));
}

async function load(port: number, cloudPort: number, seconds: number, ended: () => boolean): Promise<void> {
  const again = async (run: () => Promise<unknown>): Promise<void> => {
    while (!ended()) await run();
  };
  await Promise.all([
    ...traffics.map((traffic) => runTraffic({ ...traffic, port, seconds })),
    runLoad({ mode: "qos1", port, publishers: 20, window: 5, seconds }),
    again(() => runLoad({ mode: "retained", port, messages: 20_000, payloadBytes: 100 })),
    again(() => runLoad({ mode: "sessions", port, messages: 2000 })),
    cloudComesAndGoes(cloudPort, ended),
  ]);
}

const texts = { flat: "flat", grows: "IT GROWS", unknown: "NOT KNOWN, run it longer" } as const;

/** Says what became of memory. Undefined after a run that is too short to say so. */
function judge(samples: readonly Sample[]): Growth | undefined {
  const floors = floorsOf(
    samples.filter((one) => one.minutes >= warmUpMinutes),
    floorMinutes,
  );
  if (floors.length < trendReadingsMin) {
    say(`  too short a run for a verdict: the first ${warmUpMinutes} minutes are V8's, and it needs as many again`);
    return undefined;
  }
  const growth = growthOf(floors, leak);
  const { slope, uncertainty, first, last } = growth.trend;
  say(
    `  RSS after ${warmUpMinutes} minutes, lowest of each ${floorMinutes * 60} s: ${slope.toFixed(1)} kB a minute, known within ${uncertainty.toFixed(1)} (95 %): ${texts[growth.verdict]}`,
  );
  say(`  a leak of ${growth.tellable.toFixed(0)} kB a minute would have been told`);
  say(`  median of their first tenth ${first} kB, of their last ${last} kB`);
  return growth;
}

const figuresOf = ({ trend }: Growth): BenchReport["figures"] => [
  { name: "RSS, growth after the warm-up", unit: "kB/min", better: "less", values: [trend.slope] },
  { name: "RSS, median at the end", unit: "kB", better: "less", values: [trend.last] },
];

export async function soak(): Promise<BenchReport> {
  say(`\n${minutes} minutes of full load`);
  const [port = 0, httpPort = 0, cloudPort = 0] = await freePorts(3);
  const gateway = await GatewayProcess.create(configOf(port, httpPort, cloudPort));
  gateway.prefix = pinned(0);
  try {
    await gateway.start(unitEnvironment());
    const endMs = performance.now() + minutes * 60_000;
    const ended = (): boolean => performance.now() >= endMs;
    const [samples] = await Promise.all([watch(gateway.pid, ended), load(port, cloudPort, minutes * 60, ended)]);
    const growth = judge(samples);
    say(`  highest of all ${Math.max(...samples.map(({ value }) => value))} kB`);
    const passed = await counters(httpPort, /^tidegate_mqtt_messages_total/);
    for (const [name, value] of passed) say(`  ${name} ${value} (${Math.round(value / minutes / 60)}/s)`);
    for (const [name, value] of await counters(httpPort, /dropped/)) say(`  ${name} ${value}`);
    const rate = [...passed.values()].reduce((sum, value) => sum + value, 0) / minutes / 60;
    return {
      name: `soak, ${minutes} min`,
      figures: [
        ...(growth === undefined ? [] : figuresOf(growth)),
        { name: "messages in and out", unit: "msg/s", better: "more", values: [Math.round(rate)] },
      ],
    };
  } finally {
    await gateway.remove();
  }
}
