import { connect, type Socket } from "node:net";
import { generate, type Packet, parser } from "mqtt-packet";
import type { SeenPacket } from "../helpers/fakeCloud.ts";
import type { Book } from "./book.ts";

export type Version = 4 | 5;

/** One connection. On mqtt-packet and not on our codec, so that both cannot be wrong in the same way. */
class Link {
  readonly #socket: Socket;
  readonly #version: Version;
  /** Ended by us, or to be ended by the gateway because another took its session: its end is no surprise. */
  expectedEnd = false;
  farewell: number | undefined;

  constructor(
    port: number,
    version: Version,
    on: (link: Link, packet: SeenPacket) => void,
    ended: (link: Link) => void,
  ) {
    this.#version = version;
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true });
    const reader = parser({ protocolVersion: version });
    reader.on("packet", (packet: Packet) => on(this, packet as unknown as SeenPacket));
    this.#socket.on("data", (chunk: Buffer) => reader.parse(chunk));
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => ended(this));
  }

  send(packet: object): void {
    if (this.#socket.writable) this.#socket.write(generate(packet as Packet, { protocolVersion: this.#version }));
  }

  vanish(): void {
    this.expectedEnd = true;
    this.#socket.destroy();
  }

  leave(packet: object): void {
    this.expectedEnd = true;
    this.send(packet);
    this.#socket.end();
  }
}

export interface ActorOptions {
  readonly port: number;
  readonly id: string;
  readonly version: Version;
  /** Its session outlives its connections. */
  readonly persistent: boolean;
  readonly book: Book;
  readonly random: () => number;
}

/** A client of the soak: connects, and does something each tick. Its state belongs to its session, not to a connection. */
export abstract class Actor {
  readonly id: string;
  protected readonly version: Version;
  protected readonly persistent: boolean;
  protected readonly book: Book;
  protected readonly random: () => number;
  readonly #port: number;
  /** The connection whose packets count. */
  #link: Link | undefined;
  /** Its CONNACK has not come yet. */
  #coming: Link | undefined;
  /** Ticks until it connects again. */
  #rest = 0;
  #ended = false;
  readonly #links = new Set<Link>();

  constructor({ port, id, version, persistent, book, random }: ActorOptions) {
    this.#port = port;
    this.id = id;
    this.version = version;
    this.persistent = persistent;
    this.book = book;
    this.random = random;
    this.#rest = Math.floor(random() * 40);
  }

  get online(): boolean {
    return this.#link !== undefined;
  }

  /** Sockets that are not closed yet. */
  get links(): number {
    return this.#links.size;
  }

  /** @param unrest whether it may vanish, leave or take itself over; else it only comes back */
  tick(unrest: boolean): void {
    if (this.#ended || this.#coming !== undefined) return;
    if (this.#link === undefined) {
      this.#rest -= 1;
      if (this.#rest <= 0 || !unrest) this.#connect();
      return;
    }
    const dice = this.random();
    if (unrest && dice < 0.004) this.vanish();
    else if (unrest && dice < 0.006) {
      this.gone("taken over");
      this.#connect();
    } else if (unrest && dice < 0.008) this.#leave({});
    else this.act();
  }

  /** Leaves for good, and its session ends. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#link?.vanish();
    this.#coming?.vanish();
    await this.#closed();
    // A clean session that ends at once takes the kept one with it.
    await new Promise<void>((resolve) => {
      const last = new Link(
        this.#port,
        this.version,
        (link) => link.leave(this.#goodbye()),
        () => resolve(),
      );
      last.send(this.#connectPacket(true));
    });
  }

  protected send(packet: object): void {
    this.#link?.send(packet);
  }

  /** Connected. @param present the session was there */
  protected abstract up(present: boolean): void;
  protected abstract act(): void;
  protected abstract on(packet: SeenPacket): void;
  /** The connection is about to end. */
  protected gone(_how: "vanished" | "taken over" | "left"): void {}
  protected get more(): object {
    return {};
  }

  #connect(): void {
    this.book.counts.connections += 1;
    const link = new Link(
      this.#port,
      this.version,
      (from, packet) => this.#on(from, packet),
      (from) => this.#onEnd(from),
    );
    this.#links.add(link);
    this.#coming = link;
    link.send({ ...this.#connectPacket(!this.persistent), ...this.more });
  }

  #connectPacket(clean: boolean): object {
    const expiry = this.version === 5 && !clean ? { properties: { sessionExpiryInterval: 86_400 } } : {};
    const same = { cmd: "connect", protocolId: "MQTT", keepalive: 0, clientId: this.id };
    return { ...same, protocolVersion: this.version, clean, ...expiry };
  }

  #on(link: Link, packet: SeenPacket): void {
    if (packet.cmd === "disconnect") link.farewell = packet.reasonCode ?? 0;
    else if (packet.cmd === "connack" && link === this.#coming) this.#up(link, packet);
    // What comes on a connection that was taken over counts no more: its session is another connection's now.
    else if (link === this.#link) this.on(packet);
  }

  #up(link: Link, packet: SeenPacket): void {
    const code = (this.version === 5 ? packet.reasonCode : (packet["returnCode"] as number)) ?? 0;
    if (code !== 0) {
      this.book.fault(`${this.id}: CONNACK ${code}`);
      return;
    }
    if (this.#link !== undefined) {
      this.#link.expectedEnd = true;
      this.book.counts.takenOver += 1;
    }
    this.#coming = undefined;
    this.#link = link;
    this.up(packet["sessionPresent"] === true);
  }

  #onEnd(link: Link): void {
    this.#links.delete(link);
    const wasLive = link === this.#link && this.#coming === undefined;
    if (wasLive && !link.expectedEnd)
      this.book.fault(`${this.id}: the gateway ended the connection (${link.farewell ?? "3.1.1"})`);
    if (link === this.#link) this.#link = undefined;
    if (link !== this.#coming) return;
    if (!link.expectedEnd) this.book.fault(`${this.id}: the gateway closed before its CONNACK`);
    this.#coming = undefined;
  }

  /** As a cable that is pulled. */
  protected vanish(): void {
    this.book.counts.vanished += 1;
    this.gone("vanished");
    this.#link?.vanish();
    this.#away();
  }

  #leave(packet: object): void {
    this.gone("left");
    this.#link?.leave({ ...this.#goodbye(), ...packet });
    this.#away();
  }

  #away(): void {
    this.#link = undefined;
    this.#rest = Math.floor(this.random() * 60);
  }

  #goodbye(): object {
    return { cmd: "disconnect", ...(this.version === 5 ? { reasonCode: 0 } : {}) };
  }

  async #closed(): Promise<void> {
    while (this.#links.size > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
