import { expect } from "chai";
import mqtt, { type MqttClient } from "mqtt";
import { Cloud } from "../../firmware-sim/cloud.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

const filler = "x".repeat(16_000);

interface Storage {
  bytes: number;
  orphaned: Array<{ name: string; orphaned: boolean; messages: number }>;
}

/** A small store, an uplink whose cloud is down, and publishers that send more than fits. */
class Bench {
  readonly cloud = new Cloud();
  readonly gateway: GatewayProcess;
  readonly #http: number;
  readonly #port: number;
  readonly #clients: MqttClient[] = [];

  private constructor(gateway: GatewayProcess, port: number, http: number) {
    this.gateway = gateway;
    this.#port = port;
    this.#http = http;
  }

  static async open(): Promise<Bench> {
    const [port = 0, http = 0] = await freePorts(2);
    return new Bench(await GatewayProcess.create(""), port, http);
  }

  async start(uplink: string, whenFull: string): Promise<void> {
    await this.gateway.configure(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${this.#port}" } ] }
http: { listen: "http://127.0.0.1:${this.#http}" }
storage: { maxBytes: 16 MiB, minFreeBytes: 0 }
uplinks:
  - name: ${uplink}
    url: mqtt://127.0.0.1:${this.cloud.port}
    version: 4
    backoff: { min: 50ms, max: 200ms }
    queue: { maxBytes: 1 GiB, whenFull: ${whenFull} }
    forward: [ { topic: "plant/#" } ]
`);
    await this.gateway.start();
  }

  client(version: 4 | 5, more: object = {}): MqttClient {
    const url = `mqtt://127.0.0.1:${this.#port}`;
    const client = mqtt.connect(url, { protocolVersion: version, reconnectPeriod: 0, ...more });
    client.on("error", () => {});
    this.#clients.push(client);
    return client;
  }

  /** Publishes numbers `from` to `to`, 50 at once; each must be acknowledged. */
  async feed(client: MqttClient, from: number, to: number): Promise<void> {
    let next = from;
    const one = async (): Promise<void> => {
      while (next < to) await client.publishAsync("plant/a", `${next++} ${filler}`, { qos: 1 });
    };
    await Promise.all(Array.from({ length: 50 }, one));
  }

  async storage(): Promise<Storage> {
    const response = await fetch(`http://127.0.0.1:${this.#http}/api/v1/status`);
    return ((await response.json()) as { storage: Storage }).storage;
  }

  async metrics(): Promise<string> {
    return await (await fetch(`http://127.0.0.1:${this.#http}/metrics`)).text();
  }

  /** The cloud comes, and gets all that waits for it. */
  async arrived(): Promise<number[]> {
    await this.cloud.up();
    const waiting = async (): Promise<number> => {
      const response = await fetch(`http://127.0.0.1:${this.#http}/api/v1/uplinks`);
      const uplinks = (await response.json()) as Array<{ queue: { messages: number } }>;
      return uplinks.reduce((sum, { queue }) => sum + queue.messages, 0);
    };
    await until("nothing waits any more", async () => (await waiting()) === 0, 60_000);
    return [...new Set(this.cloud.messages.map(({ payload }) => Number.parseInt(String(payload), 10)))];
  }

  async close(): Promise<void> {
    for (const client of this.#clients) await client.endAsync(true);
    await this.gateway.remove();
    await this.cloud.close();
  }
}

describe("e2e: a full store", function () {
  this.timeout(180_000);
  let bench: Bench;
  beforeEach(async () => {
    bench = await Bench.open();
    await bench.cloud.up();
    await bench.cloud.down();
  });
  afterEach(async () => {
    await bench.close();
  });

  it("drop-oldest: no publisher is ever refused, and the newest reach the cloud, over a kill -9", async () => {
    await bench.start("cloud", "drop-oldest");
    const first = bench.client(5);
    await bench.feed(first, 0, 2000);
    expect((await bench.storage()).bytes).to.be.below(16 * 2 ** 20);
    await first.endAsync(true);
    await bench.gateway.end("SIGKILL");
    await bench.start("cloud", "drop-oldest");
    const second = bench.client(4, { clientId: "old" });
    let closed = 0;
    second.on("close", () => {
      closed += 1;
    });
    await bench.feed(second, 2000, 3000);
    expect(closed).to.equal(0);
    expect((await bench.storage()).bytes).to.be.below(16 * 2 ** 20);
    const metrics = await bench.metrics();
    expect(metrics).to.match(/tidegate_storage_dropped_total\{reason="store-full",uplink="cloud"\} [1-9]/);
    expect(metrics).to.match(/tidegate_storage_refused_total 0/);
    const numbers = await bench.arrived();
    expect(numbers.at(-1)).to.equal(2999);
    expect(numbers.length, "not more was dropped than needed").to.be.greaterThan(500);
    expect(numbers, "the newest, without a gap, in order").to.deep.equal(
      Array.from({ length: numbers.length }, (_, at) => 3000 - numbers.length + at),
    );
  });

  it("reject-newest: MQTT 5 is told 0x97, 3.1.1 is disconnected, and all that was acknowledged arrives", async () => {
    await bench.start("cloud", "reject-newest");
    const five = bench.client(5);
    let accepted = 0;
    let refusal: unknown;
    while (refusal === undefined && accepted < 2000) {
      try {
        await five.publishAsync("plant/a", `${accepted} ${filler}`, { qos: 1 });
        accepted += 1;
      } catch (error) {
        refusal = error;
      }
    }
    expect(refusal).to.have.property("code", 0x97);
    const four = bench.client(4, { clientId: "old" });
    await until("the 3.1.1 client is connected", () => four.connected);
    four.publish("plant/a", `-1 ${filler}`, { qos: 1 });
    await until("the 3.1.1 client is disconnected", () => !four.connected);
    await bench.gateway.end("SIGKILL");
    await bench.start("cloud", "reject-newest");
    expect(await bench.arrived()).to.deep.equal(Array.from({ length: accepted }, (_, at) => at));
    await until("there is room again", async () => {
      const again = bench.client(5);
      return await again.publishAsync("plant/a", `${accepted}`, { qos: 1 }).then(
        () => true,
        () => false,
      );
    });
  });

  it("an uplink that is taken out is an orphan, gives way first, and gets what is left when it comes back", async () => {
    await bench.start("first", "drop-oldest");
    await bench.feed(bench.client(5), 0, 300);
    await bench.gateway.end("SIGTERM");
    await bench.start("second", "drop-oldest");
    expect(
      (await bench.storage()).orphaned.map(({ name, orphaned, messages }) => ({ name, orphaned, messages })),
    ).to.deep.equal([{ name: "first", orphaned: true, messages: 300 }]);
    await bench.feed(bench.client(5), 300, 800);
    const left = (await bench.storage()).orphaned[0]?.messages ?? 0;
    expect(left).to.be.within(1, 299);
    const metrics = await bench.metrics();
    expect(metrics).to.include(`{reason="store-full",uplink="first"} ${300 - left}`);
    expect(metrics).not.to.include('{reason="store-full",uplink="second"}');
    await bench.gateway.end("SIGTERM");
    await bench.start("first", "drop-oldest");
    expect(await bench.arrived()).to.deep.equal(Array.from({ length: left }, (_, at) => 300 - left + at));
  });
});
