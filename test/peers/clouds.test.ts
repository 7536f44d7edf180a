import { expect } from "chai";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { needPeers } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { AedesBroker, type CloudBroker, Mosquitto, NatsServer, RabbitMq } from "./cloudBrokers.ts";

// Brokers that others wrote, as the cloud: what is taken while they are away, and over kill -9 of the gateway and of them, arrives, in order per
// topic and with its identity, and commands come down.

const topics = ["plant/a", "plant/b/c", "plant/long/er/topic"];

interface Identity {
  gw?: string;
  epoch?: number;
  seq?: number;
}

class Rig {
  readonly broker: CloudBroker;
  readonly gateway: GatewayProcess;
  readonly #port: number;
  readonly #http: number;
  readonly #clients: MqttClient[] = [];
  /** Per topic: the next number, and those that the gateway acknowledged. */
  readonly #next = new Map<string, number>();
  readonly #acknowledged = new Map<string, Set<number>>();
  /** Numbers in the order of their first arrival, per topic; and which message each identity is. */
  readonly #arrived = new Map<string, number[]>();
  readonly #identities = new Map<string, string>();
  readonly #faults: string[] = [];
  readonly commands: string[] = [];
  #consumer: MqttClient | undefined;

  private constructor(broker: CloudBroker, gateway: GatewayProcess, port: number, http: number) {
    this.broker = broker;
    this.gateway = gateway;
    this.#port = port;
    this.#http = http;
  }

  static async make(broker: CloudBroker, uplink: string): Promise<Rig> {
    const [port = 0, http = 0] = await freePorts(2);
    const gateway = await GatewayProcess.create(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${http}" }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    ${uplink}
    version: ${broker.version}
    envelope: ${broker.version === 5 ? "none" : "json"}
    backoff: { min: 50ms, max: 300ms }
    forward: [ { topic: "plant/#", to: "gw/{gateway}/{topic}" } ]
    receive: [ { topic: "gw/{gateway}/cmd/#", to: "cmd/{rest}", qos: 1 } ]
`);
    return new Rig(broker, gateway, port, http);
  }

  async #client(url: string, options: IClientOptions): Promise<MqttClient> {
    const client = mqtt.connect(url, { reconnectPeriod: 100, resubscribe: false, ...options });
    client.on("error", () => {});
    this.#clients.push(client);
    await new Promise<void>((resolve) => client.once("connect", () => resolve()));
    return client;
  }

  /** So many to each topic. @param acknowledged waits for all of them */
  async feed(count: number, acknowledged = true): Promise<void> {
    // MQTT 3.1.1: with 5 this library looks past our Receive Maximum.
    const device = await this.#client(`mqtt://127.0.0.1:${this.#port}`, { reconnectPeriod: 0, protocolVersion: 4 });
    const sent = topics.flatMap((topic) => {
      const from = this.#next.get(topic) ?? 1;
      this.#next.set(topic, from + count);
      const acks = this.#acknowledged.get(topic) ?? new Set<number>();
      this.#acknowledged.set(topic, acks);
      return Array.from({ length: count }, async (_, at) => {
        await device.publishAsync(topic, JSON.stringify({ n: from + at }), { qos: 1 });
        acks.add(from + at);
      });
    });
    if (!acknowledged) {
      for (const each of sent) each.catch(() => {}); // the gateway is killed meanwhile
      return;
    }
    await Promise.all(sent);
    await device.endAsync();
  }

  /** A consumer at the cloud, with a session that the cloud keeps. */
  async consume(): Promise<void> {
    const { version } = this.broker;
    await this.#consumer?.endAsync(true);
    const consumer = await this.#client(this.broker.url(), {
      ...{ clientId: "consumer", clean: false, protocolVersion: version },
      ...(version === 5 ? { properties: { sessionExpiryInterval: 3600 } } : {}),
      ...this.broker.consumer(),
    });
    this.#consumer = consumer;
    consumer.on("message", (topic, payload, packet) => {
      const body = JSON.parse(payload.toString()) as { data?: { n?: number }; n?: number } & Identity;
      const properties = packet.properties?.userProperties as Record<string, string> | undefined;
      const { gw, epoch, seq }: Record<string, unknown> = properties ?? { ...body };
      this.#take(topic.replace("gw/g1/", ""), body.data?.n ?? body.n ?? 0, `${gw} ${epoch} ${seq}`);
    });
    await consumer.subscribeAsync("gw/g1/plant/#", { qos: 1 });
  }

  #take(topic: string, number: number, identity: string): void {
    const name = `${topic} ${number}`;
    if (!/^g1 \d+ \d+$/.test(identity)) this.#faults.push(`${name}: identity ${identity}`);
    if ((this.#identities.get(identity) ?? name) !== name)
      this.#faults.push(`${identity} was another one than ${name}`);
    this.#identities.set(identity, name);
    const arrived = this.#arrived.get(topic) ?? [];
    this.#arrived.set(topic, arrived);
    if (arrived.includes(number)) return;
    if (number < (arrived.at(-1) ?? 0)) this.#faults.push(`${name} after ${arrived.at(-1)}`);
    arrived.push(number);
  }

  /** Different messages that the consumer has. */
  get arrived(): number {
    return this.#identities.size;
  }

  /** All that was acknowledged is there. */
  async complete(): Promise<void> {
    const missing = (): string[] =>
      topics.flatMap((topic) => {
        const arrived = new Set(this.#arrived.get(topic));
        return [...(this.#acknowledged.get(topic) ?? [])].filter((n) => !arrived.has(n)).map((n) => `${topic} ${n}`);
      });
    await until("all are there", () => missing().length === 0, 60_000).catch((error: Error) => {
      throw new Error(`${error.message}: ${missing().length} missing: ${missing().slice(0, 9)}; ${this.#faults}`);
    });
    expect(this.#faults).to.deep.equal([]);
  }

  async uplinkState(): Promise<{ link: string; problem?: string }> {
    const answer = await fetch(`http://127.0.0.1:${this.#http}/api/v1/uplinks`);
    const [first] = (await answer.json()) as Array<{ link: string; problem?: string }>;
    return first!;
  }

  async up(): Promise<void> {
    await until("the link is up", async () => (await this.uplinkState()).link === "up", 60_000);
  }

  async act(what: "pause" | "resume"): Promise<void> {
    const url = `http://127.0.0.1:${this.#http}/api/v1/uplinks/cloud/${what}`;
    expect((await fetch(url, { method: "POST" })).status).to.equal(200);
  }

  async crash(): Promise<void> {
    await this.gateway.end("SIGKILL");
  }

  /** The device's side of commands. */
  async obey(): Promise<void> {
    const device = await this.#client(`mqtt://127.0.0.1:${this.#port}`, {
      ...{ clientId: "obedient", clean: false, protocolVersion: 5 },
      properties: { sessionExpiryInterval: 3600 },
    });
    device.on("message", (topic, payload) => this.commands.push(`${topic} ${payload}`));
    await device.subscribeAsync("cmd/#", { qos: 1 });
  }

  async command(text: string): Promise<void> {
    const operator = await this.#client(this.broker.url(), {
      ...{ protocolVersion: this.broker.version },
      ...this.broker.consumer(),
    });
    await operator.publishAsync("gw/g1/cmd/boiler/set", text, { qos: 1 });
    await operator.endAsync();
  }

  async obeyed(text: string): Promise<void> {
    await until(`the command ${text}`, () => this.commands.includes(`cmd/boiler/set ${text}`), 60_000);
  }

  async remove(): Promise<void> {
    for (const client of this.#clients) await client.endAsync(true).catch(() => {});
    await this.gateway.remove();
    await this.broker.remove();
  }
}

async function begin(broker: CloudBroker): Promise<Rig> {
  await broker.prepare();
  return Rig.make(broker, broker.uplink());
}

/** All of it with one broker. */
async function wholeLife(rig: Rig): Promise<void> {
  const { broker, gateway } = rig;
  await gateway.start();
  await rig.feed(150); // no cloud was ever seen
  await rig.crash();
  await broker.start();
  await rig.consume();
  await gateway.start();
  await rig.complete();
  await rig.obey(); // a device with a session that the gateway keeps
  await rig.feed(20);
  await rig.complete();
  const before = rig.arrived;
  await rig.feed(300, false); // and killed in the midst of it
  await until("some of them are there", () => rig.arrived > before);
  await rig.crash();
  await rig.command("while the gateway was away");
  await gateway.start();
  await rig.obeyed("while the gateway was away");
  await rig.up();
  await rig.feed(20);
  await rig.complete();
  await rig.command("21");
  await rig.obeyed("21");
  if (!broker.quick) return;
  await broker.kill();
  await rig.feed(150);
  await rig.act("pause"); // or what the cloud has no consumer for yet would be lost there
  await broker.start();
  await rig.consume();
  await rig.act("resume");
  await rig.complete();
  await rig.command("22");
  await rig.obeyed("22");
}

const brokers: ReadonlyArray<readonly [string, string, () => CloudBroker]> = [
  ["mosquitto, MQTT 5, persistence", "mosquitto", () => new Mosquitto(5, "none", true)],
  ["mosquitto, MQTT 5, TLS, no persistence", "mosquitto", () => new Mosquitto(5, "tls", false)],
  ["mosquitto, MQTT 3.1.1, mutual TLS, persistence", "mosquitto", () => new Mosquitto(4, "mutual", true)],
  ["nats-server, MQTT 3.1.1", "nats-server", () => new NatsServer()],
  ["aedes, MQTT 3.1.1", "node", () => new AedesBroker()],
  ["rabbitmq-server, MQTT 3.1.1", "rabbitmq-server", () => new RabbitMq()],
];

describe("peer: real brokers as the cloud", function () {
  this.timeout(240_000);
  let rig: Rig | undefined;
  afterEach(async () => {
    await rig?.remove();
    rig = undefined;
  });

  for (const [name, program, make] of brokers)
    it(`${name}: what was taken while it was away, and over kill -9, arrives in order; commands come down`, async function () {
      needPeers(this, program, "openssl");
      rig = await begin(make());
      await wholeLife(rig);
    });

  it("mosquitto, mutual TLS: without a certificate of ours it refuses, and the gateway says so", async function () {
    needPeers(this, "mosquitto", "openssl");
    const broker = new Mosquitto(5, "mutual", false);
    await broker.prepare();
    await broker.start();
    rig = await Rig.make(broker, broker.uplink(false));
    await rig.gateway.start();
    await rig.feed(5);
    let problem = "";
    const said = async (): Promise<boolean> => {
      const { link, problem: shown = "" } = await rig!.uplinkState();
      problem = shown;
      return link !== "up" && /certificate|alert/i.test(shown);
    };
    await until("it says why", said).catch(() => {
      throw new Error(`problem: ${problem}`);
    });
  });
});
