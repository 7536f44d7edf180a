import { createSocket, type Socket } from "node:dgram";
import type { Clock, Timer } from "../../../../src/base/clock.ts";
import type { Intake, Reading, ReadingOutcome } from "../../../../src/base/contracts.ts";
import { silentLog } from "../../../../src/base/log.ts";
import { Meter } from "../../../../src/base/meter.ts";
import {
  type CoapMessage,
  type CoapOption,
  encodeEmpty,
  encodeMessage,
  parseMessage,
} from "../../../../src/wire/coap/message.ts";
import { firstOption, uintOption } from "../../../../src/wire/coap/options.ts";
import { comesMsMax } from "../../../helpers/wait.ts";

/** A clock that only the test moves. Timers fire in order of their moment. */
export class FakeClock implements Clock {
  #nowMs = 1_000_000;
  readonly #timers = new Map<object, { atMs: number; callback: () => void }>();

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  setTimer(ms: number, callback: () => void): Timer {
    const key = {};
    this.#timers.set(key, { atMs: this.#nowMs + Math.max(0, ms), callback });
    return { cancel: () => void this.#timers.delete(key) };
  }

  get timers(): number {
    return this.#timers.size;
  }

  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      let due: [object, { atMs: number; callback: () => void }] | undefined;
      for (const entry of this.#timers) if (due === undefined || entry[1].atMs < due[1].atMs) due = entry;
      if (due === undefined || due[1].atMs > untilMs) break;
      this.#timers.delete(due[0]);
      this.#nowMs = Math.max(this.#nowMs, due[1].atMs);
      due[1].callback();
    }
    this.#nowMs = untilMs;
  }
}

/** Keeps the readings; answers with `outcome` at once, or when the test says so. */
export class FakeIntake implements Intake {
  readonly readings: Reading[] = [];
  readonly waiting: Array<(outcome: ReadingOutcome) => void> = [];
  outcome: ReadingOutcome | "later" | "throw" = { kind: "durable", value: 1 };

  take(reading: Reading, settled: (outcome: ReadingOutcome) => void): void {
    this.readings.push(reading);
    if (this.outcome === "throw") throw new Error("secret internals");
    if (this.outcome === "later") this.waiting.push(settled);
    else settled(this.outcome);
  }

  get texts(): string[] {
    return this.readings.map(({ payload }) => Buffer.from(payload).toString());
  }
}

export async function until(condition: () => boolean, what: string, deadlineMs = comesMsMax): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** A peer with a socket of its own that writes and reads raw messages. */
export class Peer {
  readonly received: CoapMessage[] = [];
  /** Called with each message, before it is kept. */
  onMessage: (message: CoapMessage) => void = () => {};
  readonly #socket: Socket;
  #to: { port: number; address: string } | undefined;
  #taken = 0;

  private constructor(socket: Socket, to: { port: number; address: string } | undefined) {
    this.#socket = socket;
    this.#to = to;
    socket.on("message", (datagram, remote) => {
      this.#to = { port: remote.port, address: remote.address };
      const parsed = parseMessage(datagram);
      if (parsed.kind !== "message") throw new Error(`the peer got ${datagram.toString("hex")}`);
      this.onMessage(parsed.message);
      this.received.push(parsed.message);
    });
  }

  static async open(toPort?: number, port = 0): Promise<Peer> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind(port, "127.0.0.1", () => resolve());
    });
    return new Peer(socket, toPort === undefined ? undefined : { port: toPort, address: "127.0.0.1" });
  }

  /** Where the last message came from. */
  get lastFromPort(): number {
    return this.#to?.port ?? 0;
  }

  aim(port: number): void {
    this.#to = { port, address: "127.0.0.1" };
  }

  get port(): number {
    return this.#socket.address().port;
  }

  raw(bytes: Buffer): void {
    if (this.#to === undefined) throw new Error("nobody to send to yet");
    this.#socket.send(bytes, this.#to.port, this.#to.address);
  }

  send(message: Partial<CoapMessage>): void {
    this.raw(encodeMessage(complete(message)));
  }

  empty(type: "con" | "ack" | "rst" | "non", messageId: number): void {
    this.raw(encodeEmpty(type, messageId));
  }

  /** The next message not taken yet. */
  async next(what = "a message"): Promise<CoapMessage> {
    await until(() => this.received.length > this.#taken, what);
    const message = this.received[this.#taken];
    this.#taken += 1;
    if (message === undefined) throw new Error("unreachable");
    return message;
  }

  /** Sends, and gives the next message that comes. */
  ask(message: Partial<CoapMessage>): Promise<CoapMessage> {
    this.send(message);
    return this.next(`the answer to message ${message.messageId}`);
  }

  get unread(): number {
    return this.received.length - this.#taken;
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }
}

export function complete(message: Partial<CoapMessage>): CoapMessage {
  return {
    type: "con",
    code: "0.02",
    messageId: 1,
    token: Buffer.from([0xaa]),
    options: [],
    payload: Buffer.alloc(0),
    ...message,
  };
}

export const path = (...segments: string[]): CoapOption[] =>
  segments.map((segment) => ({ number: 11, value: Buffer.from(segment) }));

export const maxAgeOf = (message: CoapMessage): number | undefined => uintOption(message, 14, 4);
export const option = (message: CoapMessage, number: number): string | undefined =>
  firstOption(message, number)?.toString("hex");

export function makeDeps() {
  const clock = new FakeClock();
  const intake = new FakeIntake();
  const meter = new Meter();
  return { clock, intake, meter, log: silentLog, random: () => 0.5 };
}
