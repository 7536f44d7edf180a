/** An uplink, a broker and a store on a disk in memory, and a cloud on a real socket: what exactly once is tested with. */
import type { Store, UplinkQueue } from "../../../src/base/contracts.ts";
import { silentLog } from "../../../src/base/log.ts";
import type { Message } from "../../../src/base/message.ts";
import { Meter } from "../../../src/base/meter.ts";
import { createBroker } from "../../../src/broker/broker.ts";
import { type Broker, limitDefaults } from "../../../src/broker/options.ts";
import type { StoreOptions } from "../../../src/journal/open.ts";
import type { UplinkOptions } from "../../../src/uplink/options.ts";
import { Uplink } from "../../../src/uplink/uplink.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import type { SessionCloud } from "../../helpers/sessionCloud.ts";
import { comesMsMax } from "../../helpers/wait.ts";
import { generous, message, open, TestClock, taker, textOf, turn } from "../journal/support.ts";
import { uplinkOptions } from "./bench.ts";

export class ExactRig {
  readonly clock = new TestClock();
  readonly meter = new Meter();
  readonly cloud: SessionCloud;
  readonly options: UplinkOptions;
  /** Its process has ended. */
  dead = false;
  store!: Store;
  broker!: Broker;
  uplink!: Uplink;
  /** Takes what the cloud sends. */
  tap!: UplinkQueue;
  letters: string[] = [];
  /** For tests that put a fault in. */
  beforeUplink: (store: Store) => void = () => {};
  readonly #files: FaultyFiles;
  readonly #more: Partial<UplinkOptions>;
  readonly #storeOptions: Partial<StoreOptions>;

  constructor(
    cloud: SessionCloud,
    more: Partial<UplinkOptions> = {},
    files = new FaultyFiles(),
    storeOptions: Partial<StoreOptions> = {},
  ) {
    this.cloud = cloud;
    this.#files = files;
    this.#more = more;
    this.#storeOptions = storeOptions;
    this.options = uplinkOptions({
      urls: [cloud.url],
      forward: [{ topic: "t/#", to: "up/{rest}", qos: 2, priority: 0, ttlMs: undefined }],
      receive: [{ topic: "down/#", to: "cmd/{rest}", qos: 2, expiryMs: undefined }],
      inflight: 8,
      ...more,
    });
  }

  get files(): FaultyFiles {
    return this.#files;
  }

  async start(): Promise<this> {
    const { clock, meter } = this;
    this.store = await open(this.#files.mount(), clock, { segmentBytes: 32_768, ...this.#storeOptions });
    this.tap = this.store.uplink("tap", generous);
    const tap = { lane: this.tap.lane(0), rule: this.store.rule("tap", "{}"), ttlMs: undefined };
    const forward = { kind: "stored" as const, uplink: "tap", ...tap, whenFull: "drop-oldest" as const };
    this.broker = createBroker(
      { anonymous: true, limits: limitDefaults, version: "0" },
      {
        ...{ store: this.store, clock, log: silentLog, meter },
        routing: { routesFor: () => [] },
        forwarding: { forwardsFor: (topic) => (topic.startsWith("cmd/") ? [forward] : []) },
      },
    );
    const letters = {
      keep: (queued: Parameters<UplinkQueue["settle"]>[0]) => {
        this.letters.push(textOf(queued));
        this.store.commit((txn) => txn.settle(queued, "dead-letter"));
        return "kept" as const;
      },
      acknowledged: () => {},
    };
    const { store, broker: publisher } = this;
    this.beforeUplink(store);
    this.uplink = new Uplink(this.options, { store, publisher, letters, clock, log: silentLog, meter });
    this.store.configured();
    this.uplink.start();
    return this;
  }

  /** A message in the uplink's queue; resolves when it is durable. */
  async put(text: string, more: Partial<Message> & { priority?: number; qos2?: boolean } = {}): Promise<void> {
    const { priority = 0, qos2 = true, ...rest } = more;
    const { store } = this;
    const rule = store.rule("cloud", JSON.stringify({ filter: "t/#", to: "up/{rest}", qos: qos2 ? 2 : 1 }));
    const lane = this.uplink.queue.lane(priority);
    const { group } = store.commit((txn) => void txn.message(message(text, rest), [taker(lane, rule)]));
    await this.until("durable", () => store.durableGroup >= group);
  }

  /** All that was committed is durable. */
  async durable(): Promise<void> {
    const { store } = this;
    const { group } = store.commit((txn) => txn.put("test", "x", new Uint8Array(0)));
    await this.until("durable", () => store.durableGroup >= group);
  }

  /** Turns of the event loop, real sockets among them, while time passes. @throws Error after many */
  async until(what: string, condition: () => boolean): Promise<void> {
    const endMs = Date.now() + comesMsMax;
    for (let turns = 0; !condition() && !this.dead && !this.#files.stopped; turns += 1) {
      if (Date.now() > endMs) throw new Error(`never: ${what}; ${JSON.stringify(this.uplink.state())}`);
      await turn();
      if (turns % 25 === 24) this.clock.advance(100);
    }
  }

  /** Both sides have nothing left to do. */
  async settled(): Promise<void> {
    const { queue } = this.uplink;
    await this.until("settled", () => queue.stats().messages === 0 && this.uplink.state().inflight === 0);
    await this.until("commands", () => this.cloud.idle);
    for (let turns = 0; turns < 20; turns += 1) await turn();
    this.clock.advance(200); // identifiers are struck out
    for (let turns = 0; turns < 20; turns += 1) await turn();
  }

  /** Identifiers that are on record. */
  get onRecord(): { sent: number; held: number } {
    const count = (map: string): number => [...this.store.entries(map)].length;
    return { sent: count("uplink-sent/cloud"), held: count("uplink-held/cloud") };
  }

  /** What the gateway took of the cloud's commands. */
  async tapped(): Promise<string[]> {
    const got: string[] = [];
    for (let idle = 0; idle < 10; idle += 1) {
      for (let next = this.tap.next(); next !== undefined; next = this.tap.next()) {
        got.push(textOf(next));
        idle = 0;
      }
      await turn();
    }
    this.tap.rewind();
    return got;
  }

  /** Another process on the same disk, after a kill or a power cut. Its predecessor hangs. */
  async successor(how: "kill" | (() => number), more: Partial<UplinkOptions> = {}): Promise<ExactRig> {
    this.dead = true;
    for (const connection of this.cloud.fake.connections) connection.close();
    if (how === "kill") this.#files.kill();
    else this.#files.crash(how);
    this.clock.forgetTimers();
    const next = new ExactRig(this.cloud, { ...this.#more, ...more }, this.#files, this.#storeOptions);
    next.clock.advance(this.clock.monotonicMs());
    return next.start();
  }

  async stop(): Promise<void> {
    const stopping = this.uplink.stop();
    this.clock.advance(1000);
    await stopping;
  }

  async close(): Promise<void> {
    await this.stop();
    await this.broker.close();
    await this.store.close();
  }

  metric(name: string): number {
    const line = this.meter.expose().match(new RegExp(`^${name}\\{uplink="cloud"[^}]*\\} (.*)$`, "m"));
    return Number(line?.[1] ?? Number.NaN);
  }
}
