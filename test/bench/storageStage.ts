/**
 * One stage of the storage measurement, in a process of its own so that its memory is its own: `load` fills the queues and waits to be killed,
 * `drain` opens what is there, takes all of it in order and waits for the disk to be given back. Talks in JSON lines.
 */
import "../../src/base/youngHeap.ts";
import { readFileSync } from "node:fs";
import { systemClock } from "../../src/base/clock.ts";
import type { Store, UplinkQueue } from "../../src/base/contracts.ts";
import { nodeFiles } from "../../src/base/files.ts";
import { silentLog } from "../../src/base/log.ts";
import { Meter } from "../../src/base/meter.ts";
import { openStore } from "../../src/journal/open.ts";
import type { ScaleOptions, StageReport } from "./storageScale.ts";

const stage = process.argv[2];
const options = JSON.parse(process.argv[3] ?? "{}") as ScaleOptions;
const uncapped = { maxBytes: 2 ** 45, maxAgeMs: 2 ** 45, whenFull: "drop-oldest" } as const;
const inFlightMax = 1000;
const giveBackBytes = 40 * 1024 * 1024;

const say = (report: StageReport): unknown => process.stdout.write(`${JSON.stringify(report)}\n`);
const mebibytes = (bytes: number): number => Math.round(bytes / 1048.576) / 1000;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Highest resident memory, read each 50 ms from /proc where there is one. */
class RssWatch {
  #peak = 0;
  readonly #timer = setInterval(() => this.now(), 50);

  now(): number {
    const rss = process.memoryUsage.rss();
    this.#peak = Math.max(this.#peak, rss);
    return mebibytes(rss);
  }

  stop(): number {
    clearInterval(this.#timer);
    this.now();
    return mebibytes(this.#peak);
  }
}

/** Longest turn of the event loop by its own CPU time, as the kernel counts it for the main thread. */
const threadCpuMs = (): number => {
  try {
    const fields = readFileSync("/proc/self/stat", "utf8").split(") ")[1]!.split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return 0;
  }
};

async function open(): Promise<{ store: Store; queues: UplinkQueue[] }> {
  const store = await openStore({
    ...{ dir: options.dir, files: nodeFiles, clock: systemClock, log: silentLog, meter: new Meter() },
    ...{ maxBytes: 2 ** 40, minFreeBytes: 0, maxMessageBytes: 1024 * 1024 },
  });
  const names = Array.from({ length: options.uplinks }, (_, index) => `cloud-${index}`);
  return { store, queues: names.map((name) => store.uplink(name, uncapped)) };
}

/** Message n goes to uplink n % uplinks with priority (n / uplinks) % priorities; its payload begins with n. */
async function load(): Promise<void> {
  const { store, queues } = await open();
  const watch = new RssWatch();
  const { messages, uplinks, priorities } = options;
  const takers = queues.map((queue) =>
    Array.from({ length: priorities }, (_, priority) => [
      { lane: queue.lane(9 - priority), rule: store.rule(queue.name, "{}"), ttlMs: undefined },
    ]),
  );
  const groups = new Float64Array(inFlightMax);
  let durable = store.durableGroup;
  store.onDurable((group) => {
    durable = group;
  });
  const started = performance.now();
  let sent = 0;
  let acked = 0;
  while (acked < messages) {
    while (sent - acked < inFlightMax && sent < messages) {
      const payload = Buffer.alloc(options.payloadBytes, 65); // as from a socket: a new one each time
      payload.writeUInt32LE(sent, 0);
      const message = {
        topic: "plant/boiler/line/4/sensor/12/temp",
        payload,
        qos: 1,
        retain: false,
        source: "mqtt:d",
      } as const;
      const taker = takers[sent % uplinks]![Math.floor(sent / uplinks) % priorities]!;
      groups[sent % inFlightMax] = store.commit((txn) => txn.message(message, taker)).group;
      sent += 1;
    }
    while (acked < sent && groups[acked % inFlightMax]! <= durable) acked += 1;
    if (acked < messages) await turn();
  }
  const ms = performance.now() - started;
  const peakRss = watch.stop();
  await pause(options.settleMs);
  const memory = process.memoryUsage();
  say({
    stage: "load",
    perSecond: Math.round((messages * 1000) / ms),
    rssPeak: peakRss,
    rssAfter: mebibytes(memory.rss),
    heap: mebibytes(memory.heapTotal),
    buffers: mebibytes(memory.arrayBuffers),
    diskBytes: store.stats().bytes,
    cpuMs: threadCpuMs(),
  });
  await new Promise(() => setInterval(() => undefined, 1000)); // killed
}

async function drain(): Promise<void> {
  const opening = performance.now();
  const { store, queues } = await open();
  const reopenMs = Math.round(performance.now() - opening);
  const watch = new RssWatch();
  const { messages, uplinks, priorities } = options;
  const next = new Map<number, number>();
  const opened = watch.now();
  let out = 0;
  let wrong = 0;
  const started = performance.now();
  const pump = async (queue: UplinkQueue, uplink: number): Promise<void> => {
    const window: ReturnType<UplinkQueue["next"]>[] = [];
    for (let since = 0; ; since += 1) {
      const one = window.length < options.window ? queue.next() : undefined;
      if (one === undefined || since >= 5000) {
        since = 0;
        for (const settled of window) queue.settle(settled!);
        window.length = 0;
        if (queue.stats().messages === 0) return;
        if (one === undefined)
          await new Promise<void>((resolve) => {
            queue.onReadable(resolve);
            setImmediate(resolve);
          });
        else await turn();
      }
      if (one === undefined) continue;
      const { payload } = one.message;
      const number = payload[0]! + payload[1]! * 256 + payload[2]! * 65_536 + payload[3]! * 16_777_216;
      const lane = uplink + uplinks * (9 - one.priority);
      const expected = next.get(lane) ?? lane;
      if (number !== expected) wrong += 1;
      next.set(lane, number + uplinks * priorities);
      out += 1;
      window.push(one);
    }
  };
  await Promise.all(queues.map(pump));
  const ms = performance.now() - started;
  const peakRss = watch.stop();
  const done = performance.now();
  while (store.stats().bytes > giveBackBytes && performance.now() - done < 30_000) await pause(100);
  say({
    stage: "drain",
    reopenMs,
    rssOpened: opened,
    perSecond: Math.round((out * 1000) / ms),
    rssPeak: peakRss,
    rssAfter: watch.now(),
    missing: messages - out,
    wrong,
    diskBytes: store.stats().bytes,
    givenBackMs: Math.round(performance.now() - done),
    cpuMs: threadCpuMs(),
  });
  await store.close();
  process.exit(0);
}

await (stage === "load" ? load() : drain());
