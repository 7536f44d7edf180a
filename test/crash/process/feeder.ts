/** A publisher as MQTT wants it: what was not acknowledged is sent again in order, with DUP and the same packet id where the session is kept. */
import type { SeenPacket } from "../../helpers/fakeCloud.ts";
import { RawClient } from "../../helpers/rawClient.ts";
import { type Ledger, payloadOf, type TopicLedger } from "./ledger.ts";

interface Sent {
  readonly id: number;
  readonly topic: TopicLedger;
  readonly number: number;
  readonly payload: string;
  readonly retain: boolean;
  acknowledged: boolean;
}

export interface FeederOptions {
  readonly port: number;
  readonly name: string;
  readonly version: 4 | 5;
  readonly persistent: boolean;
  readonly ledger: Ledger;
  readonly random: () => number;
}

const windowMax = 20;
const idMax = 65_535;

export class Feeder {
  readonly #options: FeederOptions;
  /** In the order in which they were sent first. */
  #inflight = new Map<number, Sent>();
  #nextId = 1;
  #client: RawClient | undefined;
  #wanted = true;
  #feeding = true;
  /** The session must be there: something that waits for the disk was acknowledged since it was made. */
  #promised = false;
  readonly #ended: Promise<void>;

  constructor(options: FeederOptions) {
    this.#options = options;
    this.#ended = this.#run();
  }

  get idle(): boolean {
    return this.#inflight.size === 0;
  }

  /** Whether it publishes anything new; what is under way goes on. */
  feed(wanted: boolean): void {
    this.#feeding = wanted;
  }

  async stop(): Promise<void> {
    this.#wanted = false;
    await this.#client?.drop();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { port, name, version, persistent, ledger, random } = this.#options;
    while (this.#wanted) {
      const client = await RawClient.open({
        ...{ port, clientId: name, version, persistent },
        onPacket: (packet) => this.#on(packet),
      }).catch((error: unknown) => ledger.fault(String(error)));
      if (client !== undefined) {
        this.#client = client;
        this.#resume(client);
        while (this.#wanted && !client.closed) {
          for (let burst = 1 + Math.floor(random() * 8); burst > 0; burst -= 1) this.#publish(client);
          await wait(random() * 6);
        }
      }
      await wait(20);
    }
    await this.#client?.drop();
  }

  #resume(client: RawClient): void {
    const { persistent, name, ledger } = this.#options;
    const before = [...this.#inflight.values()];
    if (client.sessionPresent) {
      for (const sent of before) {
        if (sent.acknowledged) client.send({ cmd: "pubrel", messageId: sent.id });
        else {
          sent.topic.sentAgain(sent.number); // at QoS 1 the broker need not know it
          this.#send(client, sent, true);
        }
      }
      return;
    }
    if (persistent && this.#promised) ledger.fault(`${name}: its session is gone`);
    this.#promised = false;
    this.#inflight = new Map();
    for (const sent of before) {
      // Without a session, a number sent at QoS 2 may be there or not: sending it again could make it two.
      if (sent.topic.qos === 2) continue;
      sent.topic.sentAgain(sent.number);
      this.#send(client, { ...sent, id: this.#id() }, false);
    }
  }

  #publish(client: RawClient): void {
    if (!this.#feeding || client.closed || this.#inflight.size >= windowMax) return;
    const { name, ledger, random } = this.#options;
    const qos = random() < 0.5 ? 1 : 2;
    const retain = random() < 0.1;
    const topic = ledger.topic(`${retain ? "state" : "plant"}/${name}/q${qos}`, qos);
    const dice = random();
    const size = Math.floor(retain || dice < 0.9 ? random() * 300 : random() * (dice < 0.98 ? 8000 : 100_000));
    const number = topic.next++;
    const payload = payloadOf(number, size);
    this.#send(client, { id: this.#id(), topic, number, payload, retain, acknowledged: false }, false);
  }

  #send(client: RawClient, sent: Sent, dup: boolean): void {
    this.#inflight.set(sent.id, sent);
    client.publish(sent.topic.topic, sent.payload, sent.topic.qos, sent.id, { dup, retain: sent.retain });
  }

  #id(): number {
    do this.#nextId = (this.#nextId % idMax) + 1;
    while (this.#inflight.has(this.#nextId));
    return this.#nextId;
  }

  #on(packet: SeenPacket): void {
    const { name, ledger } = this.#options;
    const id = packet.messageId ?? 0;
    const sent = this.#inflight.get(id);
    // A PUBREL that is sent again may be answered with "packet identifier not found"; a stop is announced with "server shutting down".
    const usual = packet.cmd === "pubcomp" || (packet.cmd === "disconnect" && packet.reasonCode === 0x8b);
    if (!usual && (packet.reasonCode ?? 0) >= 0x80) ledger.fault(`${name}: ${packet.cmd} ${packet.reasonCode}`);
    if (packet.cmd === "puback" || packet.cmd === "pubrec") {
      const qos = packet.cmd === "puback" ? 1 : 2;
      if (sent === undefined || sent.topic.qos !== qos) {
        ledger.fault(`${name}: ${packet.cmd} ${id} answers nothing`);
        return;
      }
      for (const other of this.#inflight.values()) {
        if (other.topic.qos !== qos || other.acknowledged) continue;
        if (other !== sent) ledger.fault(`${name}: ${packet.cmd} ${id} before that of ${other.id}`);
        break;
      }
      sent.acknowledged = true;
      sent.topic.acknowledge(sent.number);
      this.#promised = true;
      if (qos === 1) this.#inflight.delete(id);
      else this.#client?.send({ cmd: "pubrel", messageId: id });
    } else if (packet.cmd === "pubcomp") this.#inflight.delete(id);
  }
}

export const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
