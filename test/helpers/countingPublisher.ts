/** Publishes numbered messages at QoS 1, and knows which were acknowledged, which refused and which not answered. */
import type { SeenPacket } from "./fakeCloud.ts";
import { RawClient } from "./rawClient.ts";
import { until } from "./wait.ts";

export class CountingPublisher {
  readonly acknowledged: number[] = [];
  /** Newest reason of a refusal; undefined when nothing was refused since the last look. */
  refusal: number | undefined;
  readonly #port: number;
  readonly #padding: string;
  readonly #topic: string;
  readonly #unanswered = new Map<number, number>();
  #next = 1;
  #client: RawClient | undefined;

  constructor(port: number, topic: string, payloadBytes: number) {
    this.#port = port;
    this.#topic = topic;
    this.#padding = "x".repeat(payloadBytes);
  }

  /** Connects (MQTT 5, a session that is not kept) and sends again what was not answered. */
  async connect(): Promise<void> {
    const client = await RawClient.open({
      ...{ port: this.#port, clientId: this.#topic.replace("/", "-"), version: 5, persistent: false },
      onPacket: (packet) => this.#on(packet),
    });
    if (client === undefined) throw new Error("no gateway");
    this.#client = client;
    const again = [...this.#unanswered.values()];
    this.#unanswered.clear();
    for (const number of again) this.#send(number);
  }

  get unanswered(): number {
    return this.#unanswered.size;
  }

  /** One more message. */
  send(): void {
    this.#send(this.#next++);
  }

  /** One more, and its answer: true when it was taken. */
  async publish(): Promise<boolean> {
    const { length } = this.acknowledged;
    this.refusal = undefined;
    this.send();
    await until("an answer", () => this.unanswered === 0);
    return this.acknowledged.length > length;
  }

  async drop(): Promise<void> {
    await this.#client?.drop();
  }

  #send(number: number): void {
    const id = 1 + (number % 65_535);
    this.#unanswered.set(id, number);
    this.#client?.publish(this.#topic, `${number} ${this.#padding}`, 1, id);
  }

  #on({ cmd, messageId = 0, reasonCode = 0 }: SeenPacket): void {
    const number = this.#unanswered.get(messageId);
    if (cmd !== "puback" || number === undefined) return;
    this.#unanswered.delete(messageId);
    if (reasonCode < 0x80) this.acknowledged.push(number);
    else this.refusal = reasonCode;
  }
}

/** The numbers of such messages in the order of their first arrival. */
export const numbersOf = (payloads: readonly string[]): number[] => [
  ...new Set(payloads.map((payload) => Number(payload.split(" ", 1)[0]))),
];
