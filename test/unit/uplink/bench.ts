import type { TlsOptions } from "node:tls";
import { Meter } from "../../../src/base/meter.ts";
import type { UplinkOptions } from "../../../src/uplink/options.ts";
import { Uplink } from "../../../src/uplink/uplink.ts";
import { type CloudScript, FakeCloud } from "../../helpers/fakeCloud.ts";
import {
  type LoggedLine,
  MemoryLetters,
  MemoryPublisher,
  MemoryQueue,
  MovedClock,
  memoryStore,
  recordingLog,
} from "../../helpers/memoryUplink.ts";
import { until } from "../../helpers/wait.ts";

export const uplinkOptions = (more: Partial<UplinkOptions> = {}): UplinkOptions => ({
  name: "cloud",
  gatewayId: "g1",
  urls: [],
  version: 5,
  clientId: "g1",
  username: undefined,
  password: undefined,
  tls: undefined,
  keepAliveMs: 60_000,
  sessionExpiryMs: 604_800_000,
  envelope: "none",
  meta: [],
  forward: [],
  receive: [],
  queue: { maxBytes: 1e9, maxAgeMs: 1e12, whenFull: "drop-oldest" },
  inflight: 1000,
  maxQos: 2,
  maxPacketSize: undefined,
  drain: { maxPerSecond: 0, maxBytesPerSecond: 0, liveShare: 0 },
  backoff: { minMs: 1000, maxMs: 60_000 },
  refusedRetries: 10,
  ...more,
});

/** An uplink with everything around it in RAM, except the socket to the fake cloud. */
export class Bench {
  readonly clock = new MovedClock();
  readonly queue = new MemoryQueue(this.clock);
  readonly letters = new MemoryLetters(this.queue);
  readonly paused = new Set<string>();
  readonly publisher = new MemoryPublisher();
  readonly lines: LoggedLine[] = [];
  readonly meter = new Meter();
  readonly rules = new Map([[1, JSON.stringify({ filter: "plant/#", to: "up/{rest}", qos: 1 })]]);
  readonly cloud: FakeCloud;
  readonly uplink: Uplink;

  private constructor(cloud: FakeCloud, options: UplinkOptions) {
    this.cloud = cloud;
    this.uplink = this.another(options);
  }

  static async open(options: Partial<UplinkOptions> = {}, script: CloudScript = {}, tls?: TlsOptions): Promise<Bench> {
    const cloud = await FakeCloud.open(options.version ?? 5, script, tls);
    const bench = new Bench(cloud, uplinkOptions({ urls: [cloud.url], ...options }));
    opened.push(async () => {
      await cloud.close();
      await bench.uplink.stop();
    });
    return bench;
  }

  /** Opens, starts, and waits for the link. */
  static async up(options: Partial<UplinkOptions> = {}, script: CloudScript = {}): Promise<Bench> {
    const bench = await Bench.open(options, script);
    bench.uplink.start();
    await bench.untilUp();
    return bench;
  }

  /** One more uplink on the same queue, as a reload makes it. */
  another(options: UplinkOptions): Uplink {
    const { clock, publisher, meter, queue, rules, lines, letters, paused } = this;
    const store = memoryStore(queue, clock, rules, paused);
    return new Uplink(options, { store, publisher, letters, clock, log: recordingLog(lines), meter });
  }

  untilUp(): Promise<unknown> {
    return until("the link is up", () => this.uplink.state().link === "up");
  }

  untilDown(): Promise<unknown> {
    return until("the link is down", () => this.uplink.state().link === "backoff");
  }

  /** Lets time pass in small steps while the link is up. */
  passMs(ms: number): void {
    for (let passed = 0; passed < ms && this.uplink.state().link === "up"; passed += 500) this.clock.advance(500);
  }

  /** Lets time pass, but no further than to the loss of the link. */
  passUntilDown(msMax: number): void {
    for (let ms = 0; ms < msMax && this.uplink.state().link === "up"; ms += 100) this.clock.advance(100);
    if (this.uplink.state().link !== "backoff") throw new Error(`the link is not down after ${msMax} ms`);
  }

  /** Lets the pause pass, and no more: the next attempt has timers of its own. A closing socket may have one too. */
  retry(uplink = this.uplink): void {
    while (uplink.state().link === "backoff") this.clock.advance(this.clock.nextMs);
  }

  /** Waits for the loss of the link, lets the pause pass, waits for the next connection. */
  async reconnect(): Promise<void> {
    this.cloud.last?.close();
    await this.untilDown();
    this.retry();
    await this.untilUp();
  }

  /** Waits until the cloud has seen so many PUBLISH packets in all. */
  async untilPublished(count: number): Promise<string[]> {
    await until(`${count} messages at the cloud`, () => this.cloud.payloads.length >= count);
    return this.cloud.payloads;
  }

  async untilSettled(count: number): Promise<void> {
    await until(`${count} messages settled`, () => this.queue.settled.length >= count);
  }

  /** A whole turn of both sides: what was going to be sent has arrived. */
  async quiet(): Promise<void> {
    const connection = this.cloud.last;
    connection?.publish("nobody/asked", "are you there", { qos: 1, messageId: 65_000 });
    const before = connection?.seen("puback").length ?? 0;
    await until("an answer", () => (connection?.seen("puback").length ?? 0) > before);
  }

  /** A counter or gauge as it is exposed. */
  metric(name: string, labels = ""): number {
    const line = this.meter.expose().match(new RegExp(`^${name}\\{${labels}[^}]*\\} (.*)$`, "m"));
    return Number(line?.[1] ?? Number.NaN);
  }
}

const opened: Array<() => Promise<void>> = [];

/** For afterEach: everything that the test opened. */
export async function closeBenches(): Promise<void> {
  for (const close of opened.splice(0)) await close();
}
