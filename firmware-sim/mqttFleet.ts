/**
 * MQTT sensors (MQTT.js), 3.1.1 and 5 in turn, each on its own connection. `sensors/<id>/temp` carries JSON { n, celsius }; the binary
 * ones publish the boiler-status struct to `legacy/<id>/bin`, with n in its seq. QoS 1; a reading counts as accepted once its PUBACK
 * came with success. MQTT.js repeats what is in flight after a reconnect; readings beyond the window wait in a queue of our own.
 */
import type { MqttClient } from "mqtt";
import { encodeReading } from "./codec/boiler.ts";
import { ReadingQueue } from "./readingQueue.ts";

export interface MqttFleetOptions {
  /** `mqtt://127.0.0.1:1883`. */
  readonly url: string;
  /** JSON sensors; default 3. */
  readonly sensors?: number;
  /** Binary sensors; default 1. */
  readonly binary?: number;
  /** Protocol versions, taken in turn by the sensors; default [5, 4]. */
  readonly versions?: ReadonlyArray<4 | 5>;
  /** Between two readings of one sensor; default 200. */
  readonly periodMs?: number;
  /**
   * Readings of one sensor on their way at once; default 4. After a refusal (MQTT 5, reason 0x80 and up) the refused reading is sent
   * again and may arrive after later ones; with 1 the order holds even then.
   */
  readonly window?: number;
  /** Connected and no PUBACK for so long: the connection is dropped and made anew; default 10,000. */
  readonly pubackMs?: number;
  /** Client ids are `<prefix>-<id>`; default "sim". */
  readonly prefix?: string;
  readonly waitingMax?: number;
}

export interface MqttSensorStats {
  readonly id: string;
  readonly topic: string;
  readonly version: 4 | 5;
  readonly binary: boolean;
  readonly connected: boolean;
  readonly connects: number;
  readonly produced: number;
  readonly held: number;
  readonly waiting: number;
  readonly accepted: number;
  /** PUBACKs with a reason of 0x80 and up, and publishes that MQTT.js gave up. */
  readonly refused: number;
}

export class MqttFleet {
  readonly sensors: readonly MqttSensor[];

  constructor(options: MqttFleetOptions) {
    const json = options.sensors ?? 3;
    const count = json + (options.binary ?? 1);
    this.sensors = Array.from({ length: count }, (_, at) => new MqttSensor(options, at, at >= json));
  }

  async start(): Promise<void> {
    // Bundled, a CommonJS package that is imported late has its exports under `default` only.
    const loaded: Mqtt & { default?: Mqtt } = await import("mqtt");
    const connect = loaded.connect ?? loaded.default?.connect;
    for (const sensor of this.sensors) sensor.start(connect);
  }

  /** No new readings; those that wait are still published. */
  stopProducing(): void {
    for (const sensor of this.sensors) sensor.stopProducing();
  }

  async stop(): Promise<void> {
    await Promise.all(this.sensors.map((sensor) => sensor.stop()));
  }

  stats(): MqttSensorStats[] {
    return this.sensors.map((sensor) => sensor.stats());
  }
}

type Mqtt = typeof import("mqtt");
type Connect = Mqtt["connect"];

export class MqttSensor {
  readonly id: string;
  readonly topic: string;
  readonly version: 4 | 5;
  readonly binary: boolean;
  readonly #options: MqttFleetOptions;
  readonly #queue: ReadingQueue;
  readonly #inflight = new Set<number>();
  #client: MqttClient | undefined;
  #producer: NodeJS.Timeout | undefined;
  #lastProgressMs = 0;
  #connects = 0;
  #refused = 0;

  constructor(options: MqttFleetOptions, at: number, binary: boolean) {
    this.id = `${binary ? "meter" : "s"}${at + 1}`;
    this.topic = binary ? `legacy/${this.id}/bin` : `sensors/${this.id}/temp`;
    const versions = options.versions ?? [5, 4];
    this.version = versions[at % versions.length] ?? 5;
    this.binary = binary;
    this.#options = options;
    this.#queue = new ReadingQueue(options.waitingMax === undefined ? {} : { waitingMax: options.waitingMax });
  }

  static celsiusOf(n: number): number {
    return Math.round((15 + (n % 100) / 10) * 10) / 10;
  }

  /** Numbers with a PUBACK, in the order of the PUBACKs. */
  get accepted(): readonly number[] {
    return this.#queue.accepted;
  }

  start(connect: Connect): void {
    if (this.#client !== undefined) return;
    const v5 = this.version === 5;
    const client = connect(this.#options.url, {
      clientId: `${this.#options.prefix ?? "sim"}-${this.id}`,
      protocolVersion: this.version,
      clean: false,
      ...(v5 ? { properties: { sessionExpiryInterval: 3600 } } : {}),
      reconnectPeriod: 300,
      connectTimeout: 5000,
      keepalive: 15,
    });
    this.#client = client;
    client.on("connect", () => {
      this.#connects += 1;
      this.#lastProgressMs = performance.now();
      this.#fill();
    });
    client.on("error", () => {}); // MQTT.js reconnects by itself
    this.#producer = setInterval(() => {
      this.#queue.produce();
      this.#fill();
    }, this.#options.periodMs ?? 200);
  }

  stopProducing(): void {
    clearInterval(this.#producer);
    // The clock goes on: refused readings and a gateway that never answers still need it.
    if (this.#client !== undefined) this.#producer = setInterval(() => this.#fill(), 200);
  }

  /** What still waits is given up: it was never accepted. */
  async stop(): Promise<void> {
    clearInterval(this.#producer);
    const client = this.#client;
    this.#client = undefined;
    await client?.endAsync(true);
  }

  stats(): MqttSensorStats {
    return {
      id: this.id,
      topic: this.topic,
      version: this.version,
      binary: this.binary,
      connected: this.#client?.connected ?? false,
      connects: this.#connects,
      ...this.#queue.stats(),
      refused: this.#refused,
    };
  }

  #fill(): void {
    const client = this.#client;
    if (client?.connected !== true) return;
    const silentMs = performance.now() - this.#lastProgressMs;
    if (this.#inflight.size > 0 && silentMs > (this.#options.pubackMs ?? 10_000)) {
      this.#lastProgressMs = performance.now();
      client.stream.destroy();
      return;
    }
    const window = this.#options.window ?? 4;
    for (let at = 0; at < window; at += 1) {
      const n = this.#queue.at(at);
      if (n === undefined) return;
      if (!this.#inflight.has(n)) this.#publish(client, n);
    }
  }

  #publish(client: MqttClient, n: number): void {
    if (this.#inflight.size === 0) this.#lastProgressMs = performance.now();
    this.#inflight.add(n);
    client.publish(this.topic, this.#payload(n), { qos: 1 }, (error) => {
      this.#inflight.delete(n);
      if (this.#client !== client) return; // stopped
      if (error) {
        this.#refused += 1; // the next tick sends it again, not this one: the gateway has just said that it is full
        return;
      }
      this.#lastProgressMs = performance.now();
      this.#queue.accept(n);
      this.#fill();
    });
  }

  #payload(n: number): string | Buffer {
    const celsius = MqttSensor.celsiusOf(n);
    if (!this.binary) return JSON.stringify({ n, celsius });
    const temperature = Math.round(celsius * 100);
    return encodeReading({ kind: 1, seq: n & 0xffff, temperature, pressure: 1_013_250, flags: 0 });
  }
}
