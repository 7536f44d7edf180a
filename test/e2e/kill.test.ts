import { setTimeout as pause } from "node:timers/promises";
import { expect } from "chai";
import mqtt, { type MqttClient } from "mqtt";
import { Cloud } from "../../firmware-sim/cloud.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

// The promise: a PUBACK means that the cloud will have it, whatever happens to the gateway afterwards.
// The kills come at random moments on purpose; the seed is printed, so that a failure can be looked at again.
const cycles = Number(process.env["TIDEGATE_KILLS"] ?? 4);
const seed = Number(process.env["TIDEGATE_SEED"] ?? Date.now() % 1_000_000);

function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Publishes rising numbers at QoS 1, a window of them at once, and remembers which were acknowledged. */
class Feeder {
  readonly acknowledged: number[] = [];
  readonly #client: MqttClient;
  readonly #topic: string;
  #next = 0;
  #running = true;

  constructor(port: number, name: string) {
    this.#topic = `plant/${name}`;
    this.#client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
      clientId: name,
      protocolVersion: name.endsWith("5") ? 5 : 4,
      clean: false,
      reconnectPeriod: 50,
    });
    this.#client.on("error", () => {});
    for (let slot = 0; slot < 20; slot += 1) this.#feed().catch(() => {}); // rejects when abandoned
  }

  async #feed(): Promise<void> {
    while (this.#running) {
      const n = this.#next++;
      // MQTT.js keeps it and sends it again on the next connection until the PUBACK is there.
      await this.#client.publishAsync(this.#topic, JSON.stringify({ n }), { qos: 1 });
      this.acknowledged.push(n);
    }
  }

  /** Ends at once, however it stands: MQTT.js would reconnect for ever. */
  async abandon(): Promise<void> {
    this.#running = false;
    await this.#client.endAsync(true);
  }

  /** No more; resolves when all that was sent is acknowledged. */
  async finish(): Promise<void> {
    this.#running = false;
    await until(`${this.#topic}: everything is acknowledged`, () => this.acknowledged.length === this.#next, 20_000);
    await this.#client.endAsync();
  }
}

describe("e2e: kill -9", () => {
  it(`every PUBACK is kept over ${cycles} kills (seed ${seed}), and reaches the cloud in order`, async function () {
    this.timeout(120_000);
    const random = randomOf(seed);
    const cloud = new Cloud();
    await cloud.up();
    const [port = 0] = await freePorts(1);
    const gateway = await GatewayProcess.create(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloud.port}
    version: 4
    envelope: json
    backoff: { min: 50ms, max: 200ms }
    forward: [ { topic: "plant/#", to: "{topic}", qos: 1 } ]
`);
    let feeders: Feeder[] = [];
    try {
      await gateway.start();
      feeders = ["a4", "b5"].map((name) => new Feeder(port, name));
      for (let cycle = 0; cycle < cycles; cycle += 1) {
        if (cycle % 2 === 1) await cloud.down();
        const before = feeders[0]?.acknowledged.length ?? 0;
        await until("the feeders are at work", () => (feeders[0]?.acknowledged.length ?? 0) > before + 50, 20_000);
        await pause(random() * 100);
        await gateway.end("SIGKILL");
        await cloud.up();
        await gateway.start();
      }
      await Promise.all(feeders.map((feeder) => feeder.finish()));
      for (const [index, feeder] of feeders.entries()) {
        const topic = `plant/${["a4", "b5"][index]}`;
        const arrived = (): number[] =>
          cloud.messages
            .filter((message) => message.topic === topic)
            .map(({ payload }) => JSON.parse(String(payload)).data.n as number);
        await until(
          `${topic}: all are in the cloud`,
          () => new Set(arrived()).size >= feeder.acknowledged.length,
          30_000,
        );
        const first = [...new Set(arrived())];
        expect(feeder.acknowledged.filter((n) => !first.includes(n))).to.deep.equal([]);
        expect(first).to.deep.equal([...first].sort((a, b) => a - b));
      }
    } finally {
      await Promise.all(feeders.map((feeder) => feeder.abandon()));
      await gateway.remove();
      await cloud.close();
    }
  });
});
