import { expect } from "chai";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { randomOf } from "../unit/journal/support.ts";
import { Feeder, wait } from "./process/feeder.ts";
import { Ledger } from "./process/ledger.ts";
import { RoughCloud } from "./process/roughCloud.ts";

// The cloud's side: it drops, delays, refuses, falls silent, restarts with its session and without, and the gateway is killed meanwhile. What was
// acknowledged arrives, or is one dead letter where the cloud will never take it. TIDEGATE_KILLS=200 by hand; TIDEGATE_SEED repeats the choices.
const wanted = process.env["TIDEGATE_KILLS"];
const cycles = Number(wanted ?? 20);
/** Without a number by hand, a busy machine lives fewer lives rather than holding up everything else. */
const msMax = wanted === undefined ? 20_000 : Number.POSITIVE_INFINITY;
const seed = Number(process.env["TIDEGATE_SEED"] ?? Date.now() % 1_000_000);
const inflight = 50;
/** Messages that the cloud may be behind before the feeders wait for it: else what a run of hundreds of lives leaves would take hours to drain. */
const behindMax = 20_000;

const config = (mqttPort: number, httpPort: number, cloudPort: number, qos: 1 | 2): string => `
gateway: { id: g1, dataDir: ./data }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${mqttPort}" } ] }
http: { listen: "http://127.0.0.1:${httpPort}" }
storage: { maxBytes: 2 GiB, minFreeBytes: 16 MiB }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    keepAlive: 2s
    inflight: ${inflight}
    backoff: { min: 20ms, max: 100ms }
    refusedRetries: 100000
    forward:
      - { topic: "plant/kept4/#", to: "{topic}", qos: ${qos}, priority: 9 }
      - { topic: "plant/kept5/#", to: "{topic}", qos: ${qos}, priority: 5 }
      - { topic: "plant/#", to: "{topic}", qos: ${qos}, priority: 0 }
`;

interface Letters {
  letters: Array<{ id: number; seq: number; topic: string; code: string }>;
  next: number | null;
}

class Rig {
  readonly ledger = new Ledger();
  readonly random = randomOf(seed);
  readonly feeders: Feeder[] = [];
  readonly ends: Record<string, number> = {};
  gateway!: GatewayProcess;
  cloud!: RoughCloud;
  #http = 0;

  async begin(qos: 1 | 2): Promise<void> {
    const [port = 0, http = 0, cloudPort = 0] = await freePorts(3);
    this.#http = http;
    this.gateway = await GatewayProcess.create(config(port, http, cloudPort, qos));
    this.cloud = new RoughCloud(cloudPort, this.ledger, seed, inflight, qos);
    await this.gateway.start();
    for (const [name, version, persistent] of [
      ["kept4", 4, true],
      ["kept5", 5, true],
      ["clean5", 5, false],
    ] as const)
      this.feeders.push(new Feeder({ port, ledger: this.ledger, random: this.random, name, version, persistent }));
  }

  /** One life of the gateway, and the start of the next; the cloud may come and go at any moment of it. */
  async cycle(): Promise<void> {
    const { random, ledger, cloud, gateway } = this;
    const wantedNow = ledger.acknowledged + 40;
    const feeding = cloud.book.behind < behindMax;
    for (const feeder of this.feeders) feeder.feed(feeding);
    if (feeding) await until("the feeders are at work", () => ledger.acknowledged >= wantedNow, 60_000);
    const dice = random();
    if (dice < 0.3) await cloud.down(random() < 0.6);
    await wait(random() * (random() < 0.3 ? 2500 : 500));
    await cloud.up();
    await wait(random() * 300);
    const signal = random() < 0.85 ? "SIGKILL" : "SIGTERM";
    this.#ended(signal);
    const ended = await gateway.end(signal);
    this.#ended(signal);
    if (ended !== (signal === "SIGKILL" ? signal : 0)) ledger.fault(`${signal}: ${ended}: ${gateway.stderr}`);
    this.ends[signal] = (this.ends[signal] ?? 0) + 1;
    if (random() < 0.2) await cloud.down(random() < 0.6);
    await gateway.start();
    ledger.check();
  }

  #ended(signal: string): void {
    if (signal === "SIGKILL") this.cloud.book.killed();
    else this.cloud.book.stopped();
  }

  /** A good cloud from now on, nothing new; resolves when all that was promised is where it belongs. */
  async drain(): Promise<void> {
    const { cloud, feeders, ledger } = this;
    for (const feeder of feeders) feeder.feed(false);
    await cloud.behave();
    await until("the feeders' last acknowledgements", () => feeders.every(({ idle }) => idle), 60_000);
    // Roughly first: looking at each number takes a tenth of a second in the end, and the cloud lives in this process.
    const nearly = (): boolean => ledger.faults.length > 0 || cloud.book.behind < 100;
    await until("", nearly, 120_000).catch(() => {});
    const complete = (): boolean => ledger.faults.length > 0 || cloud.book.missing("plant/").length === 0;
    await until("", complete, 60_000).catch(() => {});
    const missing = cloud.book.missing("plant/");
    for (const name of missing.slice(0, 5)) ledger.fault(`${name} is missing: ${cloud.book.history(name)}`);
    if (missing.length > 0) {
      ledger.fault(`${missing.length} are missing; ${JSON.stringify(await this.state())}`);
      await this.letters();
    }
    ledger.check();
    await until("the queue is empty", async () => (await this.metric("tidegate_uplink_queue_messages")) === 0, 60_000);
  }

  /** What the gateway says of its uplinks. */
  async state(): Promise<unknown> {
    return (await fetch(`http://127.0.0.1:${this.#http}/api/v1/uplinks`)).json();
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.#http}/metrics`)).text();
    return Number(new RegExp(`^${name}(?:\\{.*\\})? (.+)$`, "m").exec(text)?.[1]);
  }

  /** Each message that was refused for good is exactly one letter, and nothing else is. */
  async letters(): Promise<number> {
    const found = new Map<number, number>();
    let before: number | null = null;
    do {
      const query: string = before === null ? "" : `&before=${before}`;
      const answer = await fetch(`http://127.0.0.1:${this.#http}/api/v1/dead-letters?limit=1000${query}`);
      const page = (await answer.json()) as Letters;
      for (const { seq } of page.letters) found.set(seq, (found.get(seq) ?? 0) + 1);
      before = page.next;
    } while (before !== null);
    const refused = new Set([...this.cloud.book.refused.keys()].map((key) => Number(key.split(" ")[2])));
    for (const seq of refused)
      if (found.get(seq) !== 1) this.ledger.fault(`seq ${seq}, refused for good, is ${found.get(seq) ?? 0} letters`);
    for (const seq of found.keys())
      if (!refused.has(seq)) this.ledger.fault(`seq ${seq} is a letter, and was not refused`);
    this.ledger.check();
    return refused.size;
  }

  async remove(): Promise<void> {
    await Promise.all(this.feeders.map((feeder) => feeder.stop()));
    await this.gateway?.remove();
    await this.cloud?.down(true);
  }
}

describe("process: a rough cloud", () => {
  for (const qos of [1, 2] as const)
    it(`QoS ${qos}: everything acknowledged arrives or is one dead letter, in order, up to ${cycles} lives (seed ${seed})`, async function () {
      this.timeout(120_000 + cycles * 8000);
      const rig = new Rig();
      const beganMs = performance.now();
      try {
        await rig.begin(qos);
        let lives = 0;
        for (; lives < cycles && performance.now() - beganMs < msMax; lives += 1) await rig.cycle();
        await rig.drain();
        const letters = await rig.letters();
        const { book, did } = rig.cloud;
        const seconds = Math.round((performance.now() - beganMs) / 1000);
        process.stdout.write(
          `      ${lives} lives ${JSON.stringify(rig.ends)}: ${rig.ledger.acknowledged} acknowledged, ${book.deliveries} deliveries, ` +
            `${book.duplicates} duplicates, ${letters} dead letters; ${seconds} s\n      ${JSON.stringify(did)}\n`,
        );
        expect(letters, "letters").to.be.above(0);
      } finally {
        await rig.remove();
      }
    });
});
