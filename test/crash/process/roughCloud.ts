/**
 * A cloud as bad as they come that still is a cloud: it acknowledges late or never, loses what is on its way, refuses for a while and for good, falls silent, reads
 * nothing, closes in the middle of a packet, restarts with its session and without. What it does is decided by the seed, each connection by a stream of its own.
 */
import { type CloudConnection, FakeCloud, type SeenPacket } from "../../helpers/fakeCloud.ts";
import { randomOf } from "../../unit/journal/support.ts";
import { type Arrival, CloudBook, type Page } from "./cloudBook.ts";
import type { Ledger } from "./ledger.ts";

const forNow = [0x80, 0x83, 0x97];
const forGood = [0x87, 0x90, 0x95, 0x99];

/** One number in 60 of each topic will never be taken, whoever asks. */
export const doomed = (number: number): boolean => number % 60 === 7;

interface Connection {
  readonly cloud: CloudConnection;
  readonly random: () => number;
  readonly page: Page;
  readonly mood: Mood;
  /** Answers that wait, in order. */
  late: Array<() => void>;
  /** PUBLISH packets until it changes its ways for the worse. */
  patience: number;
}

type Mood =
  | "kind"
  | "late"
  | "loses packets"
  | "loses acknowledgements"
  | "silent"
  | "deaf"
  | "cuts a packet"
  | "refuses";
const moods: readonly Mood[] = [
  ...(["kind", "kind", "late", "late", "refuses", "refuses"] as const),
  ...(["loses packets", "loses acknowledgements", "silent", "deaf", "cuts a packet"] as const),
];

/**
 * A lane that is refused until, after `untilMs`, the oldest refused message of it comes again, or an older one: then nothing younger can be on its way that
 * the cloud would take first.
 */
interface Quota {
  readonly untilMs: number;
  seq: number;
  readonly code: number;
}

export class RoughCloud {
  readonly book: CloudBook;
  readonly did: Record<string, number> = {};
  readonly #port: number;
  readonly #seed: number;
  readonly #inflight: number;
  readonly #qos: 1 | 2;
  /** Packet ids that came at QoS 2 and were not released: of the session. */
  readonly #held = new Set<number>();
  readonly #quotas = new Map<number, Quota>();
  readonly #open = new WeakMap<CloudConnection, Connection>();
  #newest: Connection | undefined;
  readonly #timers = new Set<NodeJS.Timeout>();
  #server: FakeCloud | undefined;
  #session = false;
  #connections = 0;
  #kind = false;

  /**
   * @param inflight the gateway's own limit of unacknowledged messages
   * @param qos what the gateway sends. At 2 the session is never lost: without it nobody can tell what was delivered.
   */
  constructor(port: number, ledger: Ledger, seed: number, inflight: number, qos: 1 | 2) {
    this.#qos = qos;
    this.#port = port;
    this.#seed = seed;
    this.#inflight = inflight;
    this.book = new CloudBook(ledger, qos === 2);
  }

  async up(): Promise<void> {
    this.#server ??= await FakeCloud.open(
      5,
      {
        connect: (cloud) => this.#connect(cloud),
        publish: (cloud, packet) => this.#publish(cloud, packet),
        ping: (cloud) => this.#ping(cloud),
        other: (cloud, packet) => this.#release(cloud, packet),
      },
      undefined,
      this.#port,
    );
  }

  async down(keepsSession: boolean): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const timer of this.#timers) clearTimeout(timer);
    await server?.close();
    const keeps = keepsSession || this.#qos === 2;
    if (!keeps) this.#session = false;
    this.#count(keeps ? "restarts" : "restarts without its session");
  }

  /** From now on it is a good cloud, but for what it refuses for good. */
  async behave(): Promise<void> {
    this.#kind = true;
    if (this.#server !== undefined) await this.down(true);
    await this.up();
  }

  #connect(cloud: CloudConnection): void {
    this.#connections += 1;
    const random = randomOf(this.#seed * 10_007 + this.#connections);
    const dice = this.#kind ? 1 : random();
    if (dice < 0.05) {
      this.#count("CONNECT refused");
      cloud.connack({ code: random() < 0.5 ? 0x88 : 0x89 });
      return;
    }
    if (dice < 0.1) {
      this.#count("no CONNACK");
      this.#after(random() * 300, () => cloud.close());
      return;
    }
    if (dice < 0.13) {
      this.#count("half a CONNACK");
      cloud.sendRaw(Buffer.from([0x20, 0x09, 0x00]));
      this.#after(random() * 100, () => cloud.close());
      return;
    }
    const receiveMaximum = random() < 0.3 ? undefined : 1 + Math.floor(random() * random() * 200);
    const sessionPresent = this.#session;
    this.#session = true;
    const windowMax = Math.min(this.#inflight, receiveMaximum ?? 65_535);
    const mood = this.#kind ? "kind" : (moods[Math.floor(random() * moods.length)] ?? "kind");
    const page = this.book.connected(sessionPresent, windowMax);
    const connection = { cloud, random, page, mood, late: [], patience: Math.floor(random() * random() * 3000) };
    this.#count(mood);
    this.#open.set(cloud, connection);
    this.#newest = connection;
    cloud.connack({ sessionPresent, properties: receiveMaximum === undefined ? {} : { receiveMaximum } });
    if (!this.#kind) this.#after(100 + random() * random() * 2500, () => cloud.close());
  }

  #ping(cloud: CloudConnection): void {
    const connection = this.#open.get(cloud);
    if (connection?.mood !== "silent" || connection.patience > 0) cloud.send({ cmd: "pingresp" });
  }

  #publish(cloud: CloudConnection, packet: SeenPacket): void {
    cloud.packets.length = 0; // a long run would keep them all
    const connection = this.#open.get(cloud);
    // What is left in the socket of a connection that another one has taken over, a broker does not read [MQTT-3.1.4-3].
    if (connection === undefined || connection !== this.#newest) return;
    const { mood, page } = connection;
    connection.patience -= 1;
    const spent = connection.patience < 0;
    if (spent && mood === "loses packets") {
      this.#after(connection.random() * 100, () => cloud.close());
      return;
    }
    const arrival = this.book.arrived(page, packet);
    if (arrival === undefined) return;
    if (this.#held.has(arrival.id)) return this.#answer(connection, arrival, 0); // [MQTT-4.3.3-10]
    const code = this.#refusal(connection, arrival);
    if (code === 0) this.book.accept(page, arrival);
    if (code === 0 && this.#qos === 2) this.#held.add(arrival.id);
    else if (forGood.includes(code)) this.book.refused.set(arrival.key, `${arrival.topic} ${arrival.number}`);
    if (spent && (mood === "silent" || mood === "loses acknowledgements")) {
      if (mood !== "silent") this.#after(connection.random() * 100, () => cloud.close());
      return;
    }
    if (spent && mood === "deaf") cloud.pause();
    if (spent && mood === "cuts a packet") {
      cloud.sendRaw(Buffer.from([0x40, 0x04, 0x00]));
      cloud.close();
      return;
    }
    this.#answer(connection, arrival, code);
  }

  /** PUBREL; some of the PUBCOMPs are lost with their connection. */
  #release(cloud: CloudConnection, { cmd, messageId = 0 }: SeenPacket): void {
    const connection = this.#open.get(cloud);
    if (cmd !== "pubrel" || connection === undefined || connection !== this.#newest) return;
    cloud.packets.length = 0;
    const known = this.#held.delete(messageId);
    if (connection.patience < 0 && connection.mood === "loses acknowledgements") return;
    cloud.send({ cmd: "pubcomp", messageId, reasonCode: known ? 0 : 0x92 });
  }

  #answer(connection: Connection, arrival: Arrival, code: number): void {
    const { cloud, mood, page, random } = connection;
    const answer = (): void => {
      if (cloud.closed) return;
      this.book.answered(page, arrival, code);
      cloud.send({ cmd: this.#qos === 2 ? "pubrec" : "puback", messageId: arrival.id, reasonCode: code });
    };
    if (mood !== "late") return answer();
    if (connection.late.push(answer) > 1) return;
    this.#after(random() * 60, () => {
      for (const each of connection.late.splice(0)) each();
    });
  }

  /** The reason code for this one; 0 when it is taken. */
  #refusal({ mood, random }: Connection, { seq, number, lane }: Arrival): number {
    if (doomed(number)) {
      this.#count("refused for good");
      return forGood[number % forGood.length] ?? 0x87;
    }
    const quota = this.#quotas.get(lane);
    if (quota !== undefined) {
      if (seq <= quota.seq && performance.now() >= quota.untilMs) {
        this.#quotas.delete(lane);
        return 0;
      }
      // What was accepted before comes again after a lost acknowledgement, and is refused too: what lies behind it must not be taken first.
      quota.seq = Math.min(quota.seq, seq);
      this.#count("refused for now");
      return quota.code;
    }
    if (this.#kind || mood !== "refuses" || random() > 0.01) return 0;
    const code = forNow[Math.floor(random() * forNow.length)] ?? 0x97;
    this.#quotas.set(lane, { untilMs: performance.now() + random() * 1500, seq, code });
    this.#count("refused for now");
    return code;
  }

  #after(ms: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
  }

  #count(what: string): void {
    this.did[what] = (this.did[what] ?? 0) + 1;
  }
}
