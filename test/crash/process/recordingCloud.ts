/** The cloud: comes and goes, acknowledges at once, late or never, and remembers what it got. */
import { FakeCloud, type SeenPacket } from "../../helpers/fakeCloud.ts";
import { Arrivals, type Ledger } from "./ledger.ts";
import { parsed } from "./receiver.ts";

export class RecordingCloud {
  readonly arrivals: Arrivals;
  readonly #port: number;
  readonly #ledger: Ledger;
  readonly #random: () => number;
  /** The identity of each number's copies: of one taken at QoS 2 there is one only. */
  readonly #seqs = new Map<string, Set<string>>();
  #server: FakeCloud | undefined;

  constructor(port: number, ledger: Ledger, random: () => number) {
    this.#port = port;
    this.#ledger = ledger;
    this.#random = random;
    this.arrivals = new Arrivals("cloud", ledger);
  }

  async up(): Promise<void> {
    this.#server ??= await FakeCloud.open(
      5,
      {
        connect: (connection) => {
          this.arrivals.connected();
          connection.connack();
        },
        publish: (connection, packet) => {
          connection.packets.length = 0; // a long run would keep them all
          this.#take(packet);
          const dice = this.#random();
          if (dice < 0.9995) connection.puback(packet.messageId);
          else connection.close();
        },
      },
      undefined,
      this.#port,
    );
  }

  async down(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.close();
  }

  #take({ payload, topic = "", properties }: SeenPacket): void {
    this.arrivals.take(topic, parsed(payload), false);
    const { userProperties = {} } = (properties ?? {}) as { userProperties?: Record<string, string> };
    const number = (parsed(payload) as { n?: number } | undefined)?.n ?? 0;
    const key = `${topic} ${number}`;
    const seqs = this.#seqs.get(key) ?? new Set();
    this.#seqs.set(key, seqs.add(`${userProperties["epoch"]} ${userProperties["seq"]}`));
    const sends = this.#ledger.topics.get(topic)?.sends(number) ?? 0;
    if (seqs.size > sends) this.#ledger.fault(`cloud: ${key}: taken ${seqs.size} times`);
  }
}
