/** A subscriber whose session outlives its connections: it subscribes once, and never again. */
import type { SeenPacket } from "../../helpers/fakeCloud.ts";
import { RawClient } from "../../helpers/rawClient.ts";
import { until } from "../../helpers/wait.ts";
import { wait } from "./feeder.ts";
import { Arrivals, type Ledger, type Pool } from "./ledger.ts";

export interface ReceiverOptions {
  readonly port: number;
  readonly name: string;
  readonly version: 4 | 5;
  readonly qos: 1 | 2;
  readonly ledger: Ledger;
  readonly random: () => number;
  /** It is a member of this shared group, over `plant/#`. */
  readonly pool?: Pool;
}

const slowMs = 20;

export class Receiver {
  readonly arrivals: Arrivals;
  readonly #pool: Pool | undefined;
  readonly #options: ReceiverOptions;
  /** QoS 2 packet ids that were received and not released. */
  readonly #held = new Set<number>();
  /** Acknowledgements of a slow connection, in order. */
  #late: object[] = [];
  #slow = false;
  #client: RawClient | undefined;
  #online = true;
  #wanted = true;
  #subscribed = false;
  readonly #ended: Promise<void>;

  constructor(options: ReceiverOptions) {
    this.#options = options;
    this.arrivals = new Arrivals(options.name, options.ledger);
    this.#pool = options.pool;
    this.#ended = this.#run();
  }

  get name(): string {
    return this.#options.name;
  }

  /** Resolves once it has subscribed. */
  async subscribed(): Promise<void> {
    await until(`${this.name} has subscribed`, () => this.#subscribed);
  }

  async online(online: boolean): Promise<void> {
    this.#online = online;
    if (!online) await this.#client?.drop();
  }

  async stop(): Promise<void> {
    this.#wanted = false;
    await this.#client?.drop();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { port, name, version, ledger, random } = this.#options;
    while (this.#wanted) {
      await wait(20);
      if (!this.#online) continue;
      this.#late = [];
      this.#slow = random() < 0.3;
      this.arrivals.connected();
      const client = await RawClient.open({
        ...{ port, clientId: name, version, persistent: true },
        onPacket: (packet) => this.#on(packet),
      }).catch((error: unknown) => ledger.fault(String(error)));
      if (client === undefined) continue;
      this.#client = client;
      if (!this.#online) await client.drop(); // it was told so meanwhile
      if (!client.sessionPresent) this.#fresh(client);
      this.#flush(); // what came with the CONNACK
      while (this.#wanted && !client.closed) {
        await wait(slowMs);
        this.#flush();
      }
    }
    await this.#client?.drop();
  }

  #fresh(client: RawClient): void {
    const { name, qos, ledger } = this.#options;
    if (this.#subscribed) ledger.fault(`${name}: its session is gone`);
    client.subscribe(this.#pool === undefined ? "plant/#" : "$share/pool/plant/#", qos);
  }

  #on(packet: SeenPacket): void {
    const { qos, ledger, name } = this.#options;
    const { messageId = 0 } = packet;
    if (packet.cmd === "suback") this.#subscribed = true;
    else if (packet.cmd === "pubrel") {
      this.#held.delete(messageId);
      this.#answer({ cmd: "pubcomp", messageId });
    } else if (packet.cmd === "publish") {
      const topic = packet.topic ?? "";
      const sentAt = ledger.topics.get(topic)?.qos ?? 0;
      if (packet.qos !== Math.min(qos, sentAt)) ledger.fault(`${name}: ${topic} came at QoS ${packet.qos}`);
      const held = packet.qos === 2 && this.#held.has(messageId);
      if (!held) (this.#pool ?? this.arrivals).take(topic, parsed(packet.payload), packet.qos === 2);
      if (packet.qos === 2) this.#held.add(messageId);
      this.#answer({ cmd: packet.qos === 2 ? "pubrec" : "puback", messageId });
    }
  }

  #answer(packet: object): void {
    this.#late.push(packet);
    if (!this.#slow) this.#flush();
  }

  #flush(): void {
    const client = this.#client;
    if (client === undefined || client.closed) return;
    for (const packet of this.#late.splice(0)) client.send(packet);
  }
}

export function parsed(payload: Buffer | undefined): unknown {
  try {
    return JSON.parse(String(payload)) as unknown;
  } catch {
    return undefined;
  }
}
