import { readFileSync } from "node:fs";
import { expect } from "chai";
import { type CloudConnection, FakeCloud, type SeenPacket } from "../helpers/fakeCloud.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { RawClient } from "../helpers/rawClient.ts";
import { until } from "../helpers/wait.ts";
import { randomOf } from "../unit/journal/support.ts";
import { type HostileCase, hellos, talks } from "./hostileCases.ts";

interface Shown {
  link: string;
  /** What ended the last link; it stays when the next one is up, which `problem` does not: a pause of 20 ms is soon over. */
  lastError?: { text: string; atMs: number };
}

/** The real binary and a cloud that turns hostile: it acknowledges nothing while it is. */
class Rig {
  readonly cloud: FakeCloud;
  readonly gateway: GatewayProcess;
  readonly client: RawClient;
  readonly #http: number;
  readonly #taken: number[] = [];
  #next = 1;
  /** Wall clock: since then it has been hostile in this way. */
  #turnedMs = 0;
  hostile: HostileCase | undefined;
  /** It sends everything back, under the topic that it came with. */
  echoes = false;

  private constructor(cloud: FakeCloud, gateway: GatewayProcess, client: RawClient, http: number) {
    this.cloud = cloud;
    this.gateway = gateway;
    this.client = client;
    this.#http = http;
  }

  static async open(version: 4 | 5): Promise<Rig> {
    const [port = 0, http = 0] = await freePorts(2);
    const cloud = await FakeCloud.open(version);
    const gateway = await GatewayProcess.create(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${http}" }
storage: { maxBytes: 256 MiB, minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: ${cloud.url}
    version: ${version}
    keepAlive: 4s
    backoff: { min: 20ms, max: 100ms }
    queue: { maxBytes: 64 MiB }
    forward: [ { topic: "plant/#", to: "up/{rest}" } ]
    receive: [ { topic: "gw/{gateway}/cmd/#", to: "cmd/{rest}" }, { topic: "up/#", to: "plant/{rest}" } ]
`);
    await gateway.start();
    const client = await RawClient.open({ port, clientId: "c", version: 4, persistent: false });
    if (client === undefined) throw new Error("no gateway");
    const rig = new Rig(cloud, gateway, client, http);
    cloud.script = {
      connect: (connection) => (rig.hostile?.hello ?? ((one: CloudConnection) => one.connack()))(connection),
      publish: (connection, packet) => rig.#publish(connection, packet),
    };
    return rig;
  }

  #publish(connection: CloudConnection, { messageId = 0, topic = "", payload }: SeenPacket): void {
    if (this.hostile === undefined) {
      const number = Number(String(payload));
      if (!this.#taken.includes(number)) this.#taken.push(number);
      connection.puback(messageId);
      if (this.echoes) connection.publish(topic, payload ?? "", { qos: 1, messageId });
    } else if (connection.seen("publish").length === 1) this.hostile.talk?.(connection, messageId);
    else if (this.hostile.hello !== undefined) connection.close(); // it came so far: it is let go, to come again
  }

  /** Ten more that the gateway has acknowledged. */
  async feed(): Promise<void> {
    const from = this.#next;
    for (; this.#next < from + 10; this.#next += 1)
      this.client.publish("plant/a", String(this.#next), 1, (this.#next % 60_000) + 1);
    for (let n = 0; n < 10; n += 1) await this.client.take("puback");
  }

  async state(): Promise<Shown> {
    const [first] = (await (await fetch(`http://127.0.0.1:${this.#http}/api/v1/uplinks`)).json()) as Shown[];
    return first ?? { link: "none" };
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.#http}/metrics`)).text();
    return Number(new RegExp(`^${name}(?:\\{.*\\})? (.+)$`, "m").exec(text)?.[1]);
  }

  /** Its highest resident memory so far, MiB. */
  get highestMiB(): number {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${this.gateway.pid}/status`, "utf8"))?.[1]) / 1024;
  }

  /** From now on every connection is treated so. */
  async turn(hostile: HostileCase): Promise<CloudConnection> {
    const before = this.cloud.connections.length;
    this.#turnedMs = Date.now();
    this.hostile = hostile;
    this.cloud.last?.close();
    await until("a connection", () => this.cloud.connections.length > before);
    await this.feed();
    return this.cloud.connections[before]!;
  }

  /** Why the gateway left; the test took away the connection before, which is not it. */
  async leftBecause(says: RegExp): Promise<void> {
    let text = "";
    const said = async (): Promise<boolean> => {
      const { lastError } = await this.state();
      text = lastError === undefined || lastError.atMs < this.#turnedMs ? "" : lastError.text;
      return says.test(text);
    };
    await until("it says why", said).catch(() => {
      throw new Error(`what ended the link: ${text}`);
    });
  }

  get complete(): boolean {
    return this.#taken.length >= this.#next - 1;
  }

  /** A good cloud again: everything is there, once and in order, and nothing was given up. */
  async settled(): Promise<void> {
    this.hostile = undefined;
    const left = this.cloud.last;
    left?.close();
    // The gateway still says "up" until it sees the end of that connection.
    await until("it comes again", () => this.cloud.last !== left);
    await until("all of them are there", () => this.complete);
    expect(this.#taken).to.deep.equal(Array.from({ length: this.#next - 1 }, (_, n) => n + 1));
    await until("the link is up", async () => (await this.state()).link === "up");
    expect(await this.metric("tidegate_dead_letters")).to.equal(0);
    this.cloud.connections.splice(0, this.cloud.connections.length - 1);
  }

  async close(): Promise<void> {
    await this.client.drop();
    await this.gateway.remove();
    await this.cloud.close();
  }
}

for (const version of [5, 4] as const) {
  describe(`process: a hostile cloud, MQTT ${version === 4 ? "3.1.1" : "5"}`, function () {
    this.timeout(180_000);
    let rig: Rig;
    before(async () => {
      rig = await Rig.open(version);
    });
    after(() => rig?.close());

    for (const hostile of [...(version === 5 ? hellos : []), ...talks(version === 5)]) {
      const { name, says } = hostile;
      it(`${name}: ${says === undefined ? "nothing is lost" : "it is left, said why, nothing is lost"}`, async () => {
        const connection = await rig.turn(hostile);
        if (says !== undefined) {
          await until("the gateway leaves", () => connection.closed);
          await rig.leftBecause(says);
          await until(
            "it comes again",
            () => rig.cloud.connections.length > rig.cloud.connections.indexOf(connection) + 1,
          );
        }
        await rig.settled();
      });
    }

    it("anything at all: 50 connections that are answered with noise", async () => {
      const random = randomOf(version);
      const noise = (cloud: CloudConnection): void => {
        const bytes = Array.from({ length: 1 + Math.floor(random() * 60) }, () => Math.floor(random() * 256));
        if (random() < 0.5) bytes.unshift(...(random() < 0.5 ? [0x20, bytes.length] : [0x30, bytes.length]));
        cloud.sendRaw(Buffer.from(bytes));
        setTimeout(() => cloud.close(), 5); // noise may be the beginning of something long
      };
      let connections = 0;
      await rig.turn({
        name: "noise",
        hello: (cloud) => {
          connections += 1;
          if (connections % 2 === 0) cloud.connack();
          noise(cloud);
        },
      });
      await until("50 connections", () => connections >= 50, 60_000);
      await rig.settled();
    });

    it("drips a byte each 50 ms of a packet that never ends: the link is not held for ever", async () => {
      const drip = [0x30, 0x80, 0x80, 0x04, 0, 11, ...Buffer.from("gw/g1/cmd/a")];
      let at = 0;
      let timer: NodeJS.Timeout | undefined;
      const connection = await rig.turn({
        name: "drip",
        talk: (cloud) => {
          clearInterval(timer);
          at = 0;
          timer = setInterval(() => cloud.sendRaw(Buffer.from([drip[at++] ?? 120])), 50);
        },
      });
      try {
        await until("the gateway leaves", () => connection.closed, 60_000);
        await rig.leftBecause(/drips/);
      } finally {
        clearInterval(timer);
      }
      await rig.settled();
    });

    it("a flood of commands: none is lost at QoS 1, and what was in flight goes on", async () => {
      const total = 10_000;
      rig.client.subscribe("cmd/#", 0);
      await rig.client.take("suback");
      rig.client.packets.length = 0;
      const cloud = rig.cloud.last!;
      let sent = 0;
      let answered = 0;
      const flooded = (): boolean => {
        answered += cloud.seen("puback").length;
        cloud.packets.length = 0;
        for (; sent < total && sent - answered < 100; sent += 1)
          cloud.publish(`gw/g1/cmd/${sent % 7}`, `${sent} ${"x".repeat(500)}`, { qos: 1, messageId: sent + 1 });
        return answered === total;
      };
      await until("all are acknowledged", flooded, 60_000);
      expect(cloud.closed).to.equal(false);
      const came = (): SeenPacket[] => rig.client.packets.filter(({ cmd }) => cmd === "publish");
      await until("all are at the device, which is another connection", () => came().length >= total);
      const commands = came();
      expect(commands.map(({ payload }) => Number.parseInt(String(payload), 10))).to.deep.equal(
        Array.from({ length: total }, (_, n) => n),
      );
      await rig.feed();
      await rig.settled();
    });

    it("topics that loop back: what comes back is taken once more here, and not sent again", async () => {
      const cloud = rig.cloud.last!;
      cloud.packets.length = 0;
      rig.echoes = true;
      await rig.feed();
      await until("what came back is acknowledged", () => cloud.seen("puback").length === 10);
      rig.echoes = false;
      await rig.feed(); // behind all that could still be on its way
      await until("the last ones", () => rig.complete);
      expect(cloud.seen("publish")).to.have.length(20);
      await rig.settled();
    });

    it("its memory stayed in bounds", () => {
      expect(rig.highestMiB).to.be.below(180);
    });
  });
}
