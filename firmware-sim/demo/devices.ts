/** The demo's devices together: started, stopped, and what each saw accepted held against the cloud. */
import { CoapObservable } from "../coapObservable.ts";
import { CoapPoster } from "../coapPoster.ts";
import { MqttFleet, MqttSensor } from "../mqttFleet.ts";
import { SerialDevice } from "../serialDevice.ts";
import { JsonLinesProcess } from "./childProcess.ts";
import {
  type Arrival,
  compareDevice,
  compareObservation,
  type DeviceReport,
  type NumberedArrival,
  unwrapSeq,
} from "./compare.ts";

export interface DemoDevicesOptions {
  /** Folder for the serial device's link; undefined: no serial device. */
  readonly serialDir: string | undefined;
  readonly mqttPort: number;
  readonly coapServerPort: number;
  /** How to run the `sim` program. */
  readonly simCommand: readonly string[];
  readonly seed: number;
}

/** The low 16 bits run over soon, so the demo shows that too. */
const firstBoilerNumber = 65_400;

const near = (value: unknown, expected: number): boolean =>
  typeof value === "number" && Math.abs(value - expected) < 1e-6;

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

export class DemoDevices {
  readonly serial: SerialDevice | undefined;
  readonly #observable: CoapObservable;
  readonly #fleet: MqttFleet;
  readonly #options: DemoDevicesOptions;
  #poster: JsonLinesProcess | undefined;
  #posterStats: Readonly<Record<string, unknown>> = {};
  #posted: readonly number[] | undefined;

  constructor(options: DemoDevicesOptions) {
    this.#options = options;
    const { seed } = options;
    if (options.serialDir !== undefined) {
      this.serial = new SerialDevice({
        dir: options.serialDir,
        seed,
        periodMs: 100,
        firstNumber: firstBoilerNumber,
        noise: 0.05,
        tornFrames: 0.02,
        corrupt: 0.02,
        unplugEveryMs: 13_000,
        unplugForMs: 1000,
      });
    }
    this.#observable = new CoapObservable({ seed, periodMs: 500, reorder: 0.05, duplicate: 0.05, maxAgeSeconds: 5 });
    this.#fleet = new MqttFleet({ url: `mqtt://127.0.0.1:${options.mqttPort}`, sensors: 4, binary: 2, periodMs: 200 });
  }

  /** What has to be there before the gateway's config can be written. @returns the observable's port */
  async startServers(): Promise<number> {
    await this.serial?.start();
    return await this.#observable.start();
  }

  async startClients(): Promise<void> {
    await this.#fleet.start();
    const url = `coap://127.0.0.1:${this.#options.coapServerPort}/greenhouse`;
    const args = ["coap-post", "--url", url, "--period", "200ms", "--drain", "10m"];
    this.#poster = new JsonLinesProcess([...this.#options.simCommand, ...args], (line) => {
      this.#posterStats = line;
      if (line["event"] === "final" && Array.isArray(line["numbers"])) this.#posted = line["numbers"] as number[];
    });
  }

  /** No device makes new readings; those that wait are still sent. */
  async stopProducing(): Promise<void> {
    this.#observable.stopProducing();
    this.#fleet.stopProducing();
    this.#poster?.signal("SIGTERM");
    await this.serial?.stopProducing();
  }

  /** Readings that were made and have no acknowledgement, by device; only those devices that have some. */
  unaccepted(): string[] {
    const serial = this.serial?.stats().unacknowledged ?? 0;
    const rows: Array<[string, number]> = [["boiler (serial)", serial]];
    for (const sensor of this.#fleet.stats()) rows.push([`${sensor.id} (MQTT)`, sensor.waiting]);
    // The poster's last word is its final line; until then it has something to say.
    if (this.#posted === undefined)
      rows.push(["greenhouse (CoAP)", Math.max(1, Number(this.#posterStats["waiting"] ?? 1))]);
    return rows.filter(([, waiting]) => waiting > 0).map(([name, waiting]) => `${name}: ${waiting}`);
  }

  /** What went wrong with the devices themselves. */
  problem(): string | undefined {
    const poster = this.#poster;
    if (poster?.ended === undefined || this.#posted !== undefined) return undefined;
    return `the CoAP poster's process ended with ${poster.ended}\n${poster.lastLines.join("\n")}`;
  }

  /** One line of what has been acknowledged so far. */
  progress(): string {
    const fleet = this.#fleet.stats();
    const mqtt = fleet.reduce((sum, sensor) => sum + sensor.accepted, 0);
    const parts = [
      `MQTT ${mqtt} (${fleet.filter((sensor) => sensor.connected).length}/${fleet.length} connected)`,
      `CoAP post ${Number(this.#posterStats["accepted"] ?? 0)}`,
      `CoAP observed value ${this.#observable.stats().n}`,
    ];
    const serial = this.serial?.stats();
    if (serial !== undefined) parts.unshift(`serial ${serial.accepted}${serial.plugged ? "" : " (unplugged)"}`);
    return parts.join(", ");
  }

  /** @param observed what the gateway counted as accepted from the observable */
  compare(arrivals: readonly Arrival[], observed: number): DeviceReport[] {
    const byTopic = (matches: (topic: string) => boolean): Arrival[] => arrivals.filter(({ topic }) => matches(topic));
    const reports: DeviceReport[] = [];
    if (this.serial !== undefined) {
      const numbered = this.#boilerArrivals(
        this.serial,
        byTopic((topic) => topic.startsWith("plant/boiler/")),
      );
      const accepted = this.serial.accepted.map((reading) => reading.number);
      reports.push(compareDevice({ name: "boiler (serial)", seenBy: "ACK frame", order: "acks" }, accepted, numbered));
    }
    const posted = { name: "greenhouse (CoAP)", seenBy: "2.xx answer", order: "rising" } as const;
    const field = jsonArrivals(
      byTopic((topic) => topic === "field/greenhouse"),
      CoapPoster.celsiusOf,
    );
    reports.push(compareDevice(posted, this.#posted ?? [], field));
    for (const sensor of this.#fleet.sensors) {
      const topic = sensor.binary ? `meters/${sensor.id}/temp` : sensor.topic;
      const mine = byTopic((each) => each === topic);
      const numbered = sensor.binary ? meterArrivals(mine) : jsonArrivals(mine, MqttSensor.celsiusOf);
      const name = `${sensor.id} (MQTT ${sensor.version === 5 ? "5" : "3.1.1"}${sensor.binary ? ", binary" : ""})`;
      reports.push(compareDevice({ name, seenBy: "PUBACK", order: "rising" }, sensor.accepted, numbered));
    }
    const yard = jsonArrivals(
      byTopic((topic) => topic === "yard/temp"),
      CoapObservable.celsiusOf,
    );
    reports.push(compareObservation("yard (CoAP observed)", observed, yard));
    return reports;
  }

  /** Everything, whatever state it is in. */
  async stop(): Promise<void> {
    await Promise.allSettled([
      this.serial?.stop(),
      this.#observable.stop(),
      this.#fleet.stop(),
      this.#posted === undefined ? this.#poster?.stop(0) : this.#poster?.stop(2000),
    ]);
  }

  #boilerArrivals(serial: SerialDevice, arrivals: readonly Arrival[]): NumberedArrival[] {
    const readings = new Map(serial.accepted.map((reading) => [reading.number, reading]));
    let reference = firstBoilerNumber;
    return arrivals.map(({ id, topic, data }) => {
      const fields = fieldsOf(data);
      reference = unwrapSeq(Number(fields["seq"]), reference);
      const reading = readings.get(reference);
      if (reading === undefined) return { id, number: reference, right: true }; // taken, its ACK lost: nothing to compare with
      const flags = fieldsOf(fields["flags"]);
      const kind = reading.kind === 1 ? "status" : "alarm";
      const right =
        fields["kind"] === kind &&
        topic === `plant/boiler/${kind}` &&
        near(fields["temperature"], reading.temperature / 100) &&
        near(fields["pressure"], reading.pressure / 10) &&
        Number(flags["door"]) === (reading.flags & 1) &&
        Number(flags["fan"]) === ((reading.flags >> 1) & 1) &&
        Number(flags["mode"]) === ((reading.flags >> 2) & 3);
      return { id, number: reference, right };
    });
  }
}

function jsonArrivals(arrivals: readonly Arrival[], celsiusOf: (n: number) => number): NumberedArrival[] {
  return arrivals.map(({ id, data }) => {
    const { n, celsius } = fieldsOf(data);
    return { id, number: Number(n), right: near(celsius, celsiusOf(Number(n))) };
  });
}

function meterArrivals(arrivals: readonly Arrival[]): NumberedArrival[] {
  let reference = 1;
  return arrivals.map(({ id, data }) => {
    const { seq, temperature } = fieldsOf(data);
    reference = unwrapSeq(Number(seq), reference);
    return { id, number: reference, right: near(temperature, MqttSensor.celsiusOf(reference)) };
  });
}
