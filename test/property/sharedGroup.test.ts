// A shared group under random traffic: members come and go, acknowledge late or never, the gateway crashes. What was promised (its group durable) reaches
// the group at least once at QoS 1, and at QoS 2 exactly once, or at most once where clean members take part: what one was sent ends with it.
import { expect } from "chai";
import type { BrokerLimits } from "../../src/broker/options.ts";
import { durable, Rig, type TestClient, text, turns, type Version } from "../helpers/brokerRig.ts";
import { MemoryStore } from "../helpers/memoryStore.ts";
import { randomOf } from "../unit/journal/support.ts";

const runs = Number(process.env["TIDEGATE_RUNS"] ?? 30);
const session = { maxMessages: 100_000, maxBytes: 1e9, whenFull: "drop-oldest", queueQos0: false } as const;
interface Limits {
  readonly maxInflight: number;
  readonly session: BrokerLimits["session"];
}
const roomy: Limits = { maxInflight: 3, session };
const narrow: Limits = { maxInflight: 3, session: { ...session, maxMessages: 6 } };

class Member {
  readonly clientId: string;
  readonly version: Version;
  readonly durable: boolean;
  client: TestClient | undefined;
  /** QoS 2 ids received and not released; the client keeps them with its session. */
  readonly #held = new Set<number>();
  #owed: Array<{ cmd: "puback" | "pubrec" | "pubcomp"; messageId: number }> = [];
  subscribed = false;

  constructor(clientId: string, version: Version, isDurable: boolean) {
    this.clientId = clientId;
    this.version = version;
    this.durable = isDurable;
  }

  async connect(rig: Rig): Promise<void> {
    this.client = await rig.client(this.version, this.clientId, this.durable ? durable(this.version) : {});
    this.#owed = [];
    if (!this.durable) this.#held.clear();
    if (this.durable && this.subscribed) return;
    this.client.send({
      cmd: "subscribe",
      messageId: 9,
      subscriptions: [{ topic: "$share/g/t", qos: 2, nl: false, rap: false, rh: 0 }],
    });
    this.subscribed = true;
  }

  /** Looks at what came. @param got called with each message that the application would see */
  read(got: (payload: string) => void): void {
    for (const packet of this.client?.received.splice(0) ?? []) {
      const messageId = ("messageId" in packet ? packet.messageId : undefined) ?? 0;
      if (packet.cmd === "pubrel") {
        this.#held.delete(messageId);
        this.#owed.push({ cmd: "pubcomp", messageId });
      }
      if (packet.cmd !== "publish") continue;
      if (packet.qos < 2 || !this.#held.has(messageId)) got(text(packet));
      if (packet.qos === 2) this.#held.add(messageId);
      this.#owed.push({ cmd: packet.qos === 2 ? "pubrec" : "puback", messageId });
    }
  }

  answer(count: number): void {
    for (const packet of this.#owed.splice(0, count)) this.client?.send(packet);
  }
}

class World {
  readonly members: Member[];
  readonly #random: () => number;
  readonly #seen = new Map<string, number>();
  /** Accepted, by payload, with the group that promises it; 0: promised. */
  readonly #accepted = new Map<string, number>();
  readonly #limits: Limits;
  #rig: Rig;
  #next = 1;

  constructor(seed: number, clean: boolean, limits: Limits) {
    this.#limits = limits;
    this.#rig = new Rig({ store: new MemoryStore({ hold: true }), limits });
    this.#random = randomOf(seed);
    this.members = [new Member("d4", 4, true), new Member("d5", 5, true)];
    if (clean) this.members.push(new Member("c4", 4, false), new Member("c5", 5, false));
  }

  async begin(): Promise<void> {
    for (const member of this.members.slice(0, 2)) await member.connect(this.#rig);
    await turns();
    this.#settle();
  }

  async step(): Promise<void> {
    const dice = this.#random();
    const member = this.members[Math.floor(this.#random() * this.members.length)]!;
    if (dice < 0.25) for (let count = 1 + this.#random() * 6; count > 0; count -= 1) this.#publish();
    else if (dice < 0.45) this.#settle();
    else if (dice < 0.55) await this.#toggle(member);
    else if (dice < 0.85) member.answer(1 + Math.floor(this.#random() * 4));
    else if (dice < 0.95) this.#rig.advance(30 + this.#random() * 60);
    else if (dice < 0.98) await this.#crash();
    else if (this.#limits === narrow) this.#rig.store.askSessions(10);
    if (this.#random() < 0.7) await turns(1 + Math.floor(this.#random() * 4));
    this.#readAll();
  }

  /** Everybody comes, and takes all there is. */
  async end(): Promise<void> {
    for (const member of this.members.slice(0, 2)) if (member.client === undefined) await member.connect(this.#rig);
    for (let idle = 0; idle < 4; idle += 1) {
      const before = JSON.stringify([...this.#seen]);
      this.#settle();
      await turns(6);
      this.#readAll();
      for (const member of this.members) member.answer(1000);
      await turns(6);
      this.#rig.advance(100);
      if (JSON.stringify([...this.#seen]) !== before) idle = 0;
    }
  }

  /** @param lossy messages gave way or were dropped, so none has to come */
  check(atMostOnce: boolean, lossy: boolean): void {
    for (const [payload, group] of this.#accepted) {
      const times = this.#seen.get(payload) ?? 0;
      const qos = Number(payload[0]);
      if (qos === 2) expect(times, `${payload} at QoS 2`).to.be.at.most(1);
      if (!lossy && group === 0 && (qos === 1 || !atMostOnce)) expect(times, `${payload}, promised`).to.be.at.least(1);
    }
    expect(this.#rig.broker.stats().queued, "references left").to.equal(0);
    expect([...this.#rig.store.entries("sharesent")]).to.deep.equal([]);
    const left = [...this.#rig.store.referenceNames()].map((name) => this.#rig.store.references(name)?.size);
    expect(left.filter((size) => size !== 0)).to.deep.equal([]);
  }

  async close(): Promise<void> {
    await this.#rig.close();
  }

  #publish(): void {
    const qos = this.#random() < 0.5 ? 1 : 2;
    const name = `${qos} ${this.#next++}`;
    const message = { topic: "t", payload: Buffer.from(name), qos, retain: false, source: "source:test" } as const;
    const result = this.#rig.broker.publish(message);
    if (result.accepted) this.#accepted.set(name, result.group);
  }

  #settle(): void {
    this.#rig.store.settle();
    const { durableGroup } = this.#rig.store;
    for (const [payload, group] of this.#accepted) if (group <= durableGroup) this.#accepted.set(payload, 0);
  }

  async #toggle(member: Member): Promise<void> {
    if (member.client === undefined) {
      await member.connect(this.#rig);
      return;
    }
    this.#readAll();
    member.client.drop();
    await member.client.gone();
    this.#readAll();
    member.client = undefined;
  }

  async #crash(): Promise<void> {
    this.#readAll();
    const store = this.#rig.store.crash();
    for (const [payload, group] of this.#accepted) if (group > 0) this.#accepted.delete(payload);
    await this.#rig.close();
    await turns();
    this.#readAll();
    for (const member of this.members) member.client = undefined;
    this.#rig = new Rig({ store, limits: this.#limits });
  }

  #readAll(): void {
    for (const member of this.members) {
      member.read((payload) => this.#seen.set(payload, (this.#seen.get(payload) ?? 0) + 1));
    }
  }
}

describe("a shared group under random traffic", () => {
  for (const [what, clean, limits] of [
    ["durable members", false, roomy],
    ["durable and clean members", true, roomy],
    ["a full queue and a full store", true, narrow],
  ] as const) {
    it(`${what}, ${runs} runs`, async function () {
      this.timeout(60_000 + runs * 4000);
      const first = Number(process.env["TIDEGATE_SEED"] ?? 1);
      for (let seed = first; seed < first + runs; seed += 1) {
        const world = new World(seed, clean, limits);
        try {
          await world.begin();
          for (let step = 0; step < 120; step += 1) await world.step();
          await world.end();
          world.check(clean, limits === narrow);
        } catch (error) {
          throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
        } finally {
          await world.close();
        }
      }
    });
  }
});
