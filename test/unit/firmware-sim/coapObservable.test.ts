import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { decode } from "cbor-x";
import { expect } from "chai";
import { generate, type Packet, type ParsedPacket, parse } from "coap-packet";
import { CoapObservable, type CoapObservableOptions } from "../../../firmware-sim/coapObservable.ts";
import { uintOption } from "../../../firmware-sim/codec/coap.ts";
import { eventually, FakeClock } from "./fakeClock.ts";

/** A CoAP peer of a few lines: sends what it is told, keeps what comes. */
class Peer {
  readonly received: ParsedPacket[] = [];
  readonly #socket: Socket;
  readonly #port: number;

  constructor(socket: Socket, port: number) {
    this.#socket = socket;
    this.#port = port;
    socket.on("message", (datagram) => this.received.push(parse(datagram)));
  }

  send(packet: Packet | Buffer): void {
    this.#socket.send(Buffer.isBuffer(packet) ? packet : generate(packet), this.#port, "127.0.0.1");
  }

  /** @returns the answer with this message id */
  async ask(packet: Packet & { messageId: number }): Promise<ParsedPacket> {
    const from = this.received.length;
    const answer = (): ParsedPacket | undefined =>
      this.received.slice(from).find(({ messageId, ack, reset }) => (ack || reset) && messageId === packet.messageId);
    this.send(packet);
    await eventually(`an answer to ${packet.code}`, () => answer() !== undefined);
    return answer() as ParsedPacket;
  }

  /** Notifications: what is neither an acknowledgement nor a reset. */
  get notifications(): ParsedPacket[] {
    return this.received.filter(({ ack, reset }) => !ack && !reset);
  }
}

const path = (...parts: string[]): Packet["options"] =>
  parts.map((part) => ({ name: "Uri-Path" as const, value: Buffer.from(part) }));
const observe = (value: number): NonNullable<Packet["options"]> => [
  { name: "Observe", value: uintOption(value) },
  ...(path("temp") ?? []),
];
const optionOf = (packet: ParsedPacket, name: string): number | undefined => {
  const found = packet.options.find((option) => option.name === name);
  return found === undefined ? undefined : found.value.length === 0 ? 0 : found.value.readUIntBE(0, found.value.length);
};
const numberOf = (packet: ParsedPacket): number => (decode(packet.payload) as { n: number }).n;

describe("firmware-sim: CoAP observable", () => {
  const clock = { now: new FakeClock() };
  let device: CoapObservable | undefined;
  let socket: Socket;

  async function bench(
    options: CoapObservableOptions = {},
  ): Promise<{ peer: Peer; device: CoapObservable; clock: FakeClock }> {
    clock.now = new FakeClock();
    const made = new CoapObservable({ periodMs: 1000, ...options, clock: clock.now });
    device = made;
    const port = await made.start();
    socket = createSocket("udp4");
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    return { peer: new Peer(socket, port), device: made, clock: clock.now };
  }
  const token = Buffer.from([1, 2, 3]);
  const register = (messageId = 1): Packet & { messageId: number } => ({
    code: "0.01",
    confirmable: true,
    messageId,
    token,
    options: observe(0),
  });

  afterEach(async () => {
    socket?.close();
    await device?.stop();
  });

  it("answers GET /temp with CBOR, Content-Format 60 and Max-Age", async () => {
    const { peer } = await bench({ maxAgeSeconds: 5 });
    const answer = await peer.ask({
      code: "0.01",
      confirmable: true,
      messageId: 7,
      token,
      options: path("temp") ?? [],
    });
    expect(answer.code).to.equal("2.05");
    expect(answer.token.equals(token)).to.equal(true);
    expect(optionOf(answer, "Content-Format")).to.equal(60);
    expect(optionOf(answer, "Max-Age")).to.equal(5);
    expect(optionOf(answer, "Observe")).to.equal(undefined);
    expect(decode(answer.payload)).to.deep.equal({ celsius: CoapObservable.celsiusOf(1), n: 1 });
  });

  it("lists its resource, refuses others, and other methods", async () => {
    const { peer } = await bench();
    const core = path(".well-known", "core") ?? [];
    const list = await peer.ask({ code: "0.01", confirmable: true, messageId: 1, options: core });
    expect(optionOf(list, "Content-Format")).to.equal(40);
    expect(list.payload.toString()).to.match(/^<\/temp>;.*obs/);
    const asking = { confirmable: true, options: path("temp") ?? [] };
    expect((await peer.ask({ code: "0.01", confirmable: true, messageId: 2, options: path("x") ?? [] })).code).to.equal(
      "4.04",
    );
    expect((await peer.ask({ ...asking, code: "0.02", messageId: 3 })).code).to.equal("4.05");
    const critical = [{ name: 9999, value: Buffer.from("x") }, ...asking.options];
    expect((await peer.ask({ code: "0.01", confirmable: true, messageId: 4, options: critical })).code).to.equal(
      "4.02",
    );
    const accept = [...asking.options, { name: "Accept" as const, value: uintOption(50) }];
    expect((await peer.ask({ ...asking, code: "0.01", messageId: 5, options: accept })).code).to.equal("4.06");
  });

  it("answers a ping with RST and passes over garbage", async () => {
    const { peer, device } = await bench();
    for (const bad of ["", "40", "4901000100112233445566778899", "400100013d", "40010001ff", "40010001b9"]) {
      peer.send(Buffer.from(bad, "hex"));
    }
    const answer = await peer.ask({ code: "0.00", confirmable: true, messageId: 77 });
    expect(answer.reset).to.equal(true);
    expect(device.stats().malformed).to.equal(6);
    expect(peer.received).to.have.length(1);
  });

  it("answers a repeated request the same, without registering twice", async () => {
    const { peer, device, clock } = await bench();
    const first = await peer.ask(register());
    clock.advance(1000);
    const again = await peer.ask(register());
    expect(again.payload.equals(first.payload)).to.equal(true);
    expect(device.stats()).to.include({ registrations: 1, observers: 1 });
  });

  it("notifies an observer with rising observe and message numbers until it deregisters", async () => {
    const { peer, device, clock } = await bench({ confirmable: 0 });
    const answer = await peer.ask(register());
    clock.advance(5000);
    await eventually("5 notifications", () => peer.notifications.length === 5);
    const numbers = [answer, ...peer.notifications].map(numberOf);
    expect(numbers).to.deep.equal([1, 2, 3, 4, 5, 6]);
    const sequence = [answer, ...peer.notifications].map((packet) => optionOf(packet, "Observe") ?? -1);
    expect(sequence).to.deep.equal([...sequence].sort((a, b) => a - b));
    expect(new Set(sequence).size).to.equal(6);
    expect(new Set(peer.notifications.map((packet) => packet.messageId)).size).to.equal(5);
    expect(peer.notifications.every((packet) => packet.token.equals(token) && !packet.confirmable)).to.equal(true);
    const bye = await peer.ask({ code: "0.01", confirmable: true, messageId: 2, token, options: observe(1) });
    expect(optionOf(bye, "Observe")).to.equal(undefined);
    expect(device.stats().observers).to.equal(0);
  });

  for (const confirmable of [0, 1]) {
    it(`stops at an RST to a ${confirmable === 1 ? "CON" : "NON"}`, async () => {
      const { peer, device, clock } = await bench({ confirmable });
      await peer.ask(register());
      clock.advance(1000);
      await eventually("a notification", () => peer.notifications.length === 1);
      peer.send({ code: "0.00", reset: true, messageId: peer.notifications[0]?.messageId ?? -1 });
      await eventually("no observer", () => device.stats().observers === 0);
      clock.advance(60_000);
      expect(device.stats().notifications).to.equal(1);
    });
  }

  it("repeats a CON until its ACK, and gives the observer up when none comes", async () => {
    const { peer, device, clock } = await bench({ confirmable: 1, periodMs: 1_000_000 });
    await peer.ask(register());
    clock.advance(1_000_000);
    clock.advance(3000);
    await eventually("a repetition", () => peer.notifications.length === 2);
    const [first, second] = peer.notifications as [ParsedPacket, ParsedPacket];
    expect(second.messageId).to.equal(first.messageId);
    peer.send({ code: "0.00", ack: true, messageId: first.messageId });
    await eventually("confirmed", () => device.stats().confirmed === 1);
    clock.advance(900_000);
    expect(device.stats()).to.include({ observers: 1, notifications: 1 });
    clock.advance(97_000);
    await eventually("the next", () => device.stats().notifications === 2);
    clock.advance(200_000);
    expect(device.stats()).to.include({ observers: 0, lost: 1 });
  });

  it("forgets its observers in a restart; the value's number goes on", async () => {
    const { peer, device, clock } = await bench({ confirmable: 0, restartEveryMs: 2500 });
    await peer.ask(register());
    clock.advance(4000);
    expect(device.stats()).to.include({ restarts: 1, observers: 0, notifications: 2, n: 5 });
    expect(numberOf(await peer.ask(register(2)))).to.equal(5);
  });

  it("sends some twice and some late, every value at least once", async () => {
    const { peer, device, clock } = await bench({ confirmable: 0, reorder: 0.3, duplicate: 0.3, seed: 3 });
    await peer.ask(register());
    clock.advance(100_000);
    device.stopProducing();
    await eventually("100 values", () => new Set(peer.notifications.map(numberOf)).size === 100);
    const numbers = peer.notifications.map(numberOf);
    expect(numbers.length).to.be.greaterThan(110);
    expect(numbers).not.to.deep.equal([...numbers].sort((a, b) => a - b));
  });

  it("neither hears nor says anything while silent", async () => {
    const { peer, device, clock } = await bench({ confirmable: 0, silenceEveryMs: 1500, silenceForMs: 2000 });
    await peer.ask(register());
    clock.advance(1000);
    await eventually("the first", () => peer.notifications.length === 1);
    clock.advance(2400);
    clock.advance(600);
    await eventually("the one after the silence", () => peer.notifications.length === 2);
    expect(peer.notifications.map(numberOf)).to.deep.equal([2, 5]);
    expect(device.stats().n).to.equal(5);
  });
});
