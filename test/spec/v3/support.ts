/**
 * MQTT 3.1 and 3.1.1 spoken byte by byte: packets are put together here and not by a library, so that faults can be sent that no library writes,
 * and what the broker sends is compared frame by frame.
 */
import { type Duplex, duplexPair } from "node:stream";
import { expect } from "chai";
import { Rig, type RigOptions, turns } from "../../helpers/brokerRig.ts";
import { comesMsMax } from "../../helpers/wait.ts";

export type Qos = 0 | 1 | 2;
type Bytes = Uint8Array;

export const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");
const join = (...parts: readonly Bytes[]): Buffer => Buffer.concat(parts);
export const uint16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff]);

/** With the length of two bytes before it. */
export function field(value: string | Bytes): Buffer {
  const bytes = typeof value === "string" ? Buffer.from(value) : value;
  return join(uint16(bytes.length), bytes);
}

export function remainingLength(length: number): Buffer {
  const bytes: number[] = [];
  let rest = length;
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.from(bytes);
}

export function packet(first: number, ...parts: readonly Bytes[]): Buffer {
  const body = join(...parts);
  return join(Buffer.from([first]), remainingLength(body.length), body);
}

export interface Will {
  topic: string | Bytes;
  payload?: string | Bytes;
  qos?: 0 | 1 | 2 | 3;
  retain?: boolean;
}

export interface Connect {
  clean?: boolean;
  keepAlive?: number;
  will?: Will;
  username?: string | Bytes;
  password?: string | Bytes;
  name?: string;
  level?: number;
  /** In place of the flags that follow from the rest. */
  flags?: number;
}

function connectFlags(options: Connect): number {
  const { will } = options;
  const willFlags = will === undefined ? 0 : 0x04 | ((will.qos ?? 0) << 3) | (will.retain ? 0x20 : 0);
  const user = (options.username === undefined ? 0 : 0x80) | (options.password === undefined ? 0 : 0x40);
  return (options.clean === false ? 0 : 0x02) | willFlags | user;
}

/** CONNECT of level 4, Clean Session 1 and no Keep Alive, unless told otherwise. */
export function connect(clientId: string | Bytes, options: Connect = {}): Buffer {
  const { will, username, password } = options;
  const flags = options.flags ?? connectFlags(options);
  const header = [
    field(options.name ?? "MQTT"),
    Buffer.from([options.level ?? 4, flags]),
    uint16(options.keepAlive ?? 0),
  ];
  const payload = [field(clientId)];
  if (will !== undefined) payload.push(field(will.topic), field(will.payload ?? ""));
  if (username !== undefined) payload.push(field(username));
  if (password !== undefined) payload.push(field(password));
  return packet(0x10, ...header, ...payload);
}

export const durable: Connect = { clean: false };
export const mqtt31: Connect = { name: "MQIsdp", level: 3 };

export const connack = (code: number, present = false): Buffer => Buffer.from([0x20, 2, present ? 1 : 0, code]);

export interface Publish {
  qos?: Qos;
  id?: number;
  retain?: boolean;
  dup?: boolean;
}

/** The packet id is 1 where there must be one and none was given. */
export function publish(topic: string | Bytes, payload: string | Bytes, options: Publish = {}): Buffer {
  const { qos = 0, id = 1, retain = false, dup = false } = options;
  const first = 0x30 | (dup ? 8 : 0) | (qos << 1) | (retain ? 1 : 0);
  return packet(first, field(topic), qos === 0 ? hex("") : uint16(id), Buffer.from(payload));
}

export const puback = (id: number): Buffer => packet(0x40, uint16(id));
export const pubrec = (id: number): Buffer => packet(0x50, uint16(id));
export const pubrel = (id: number): Buffer => packet(0x62, uint16(id));
export const pubcomp = (id: number): Buffer => packet(0x70, uint16(id));

export type Wish = readonly [filter: string | Bytes, qos: number];
export const subscribe = (id: number, ...wishes: readonly Wish[]): Buffer =>
  packet(0x82, uint16(id), ...wishes.map(([filter, qos]) => join(field(filter), Buffer.from([qos]))));
export const suback = (id: number, ...codes: readonly number[]): Buffer => packet(0x90, uint16(id), Buffer.from(codes));
export const unsubscribe = (id: number, ...filters: ReadonlyArray<string | Bytes>): Buffer =>
  packet(0xa2, uint16(id), ...filters.map(field));
export const unsuback = (id: number): Buffer => packet(0xb0, uint16(id));
export const pingreq = hex("c000");
export const pingresp = hex("d000");
export const disconnect = hex("e000");

/** How long the first packet in `bytes` is, undefined when it is not complete. */
function frameLength(bytes: Buffer): number | undefined {
  let length = 0;
  for (let at = 1; at < Math.min(bytes.length, 5); at += 1) {
    const byte = bytes.readUInt8(at);
    length += (byte & 0x7f) * 128 ** (at - 1);
    if (byte < 0x80) return at + 1 + length <= bytes.length ? at + 1 + length : undefined;
  }
  return undefined;
}

export interface Delivery {
  topic: string;
  payload: string;
  qos: number;
  retain: boolean;
  dup: boolean;
  id: number;
}

/** What a PUBLISH frame says; the id is 0 for QoS 0. Undefined when it is another packet. */
export function delivery(frame: Buffer): Delivery | undefined {
  const first = frame.readUInt8(0);
  if (first >> 4 !== 3) return undefined;
  const start = frame.findIndex((byte, at) => at > 0 && byte < 0x80) + 1;
  const topicEnd = start + 2 + frame.readUInt16BE(start);
  const qos = (first >> 1) & 3;
  return {
    topic: frame.toString("utf8", start + 2, topicEnd),
    payload: frame.toString("utf8", topicEnd + (qos > 0 ? 2 : 0)),
    ...{ qos, retain: (first & 1) === 1, dup: (first & 8) === 8, id: qos > 0 ? frame.readUInt16BE(topicEnd) : 0 },
  };
}

const shown = (frames: readonly Buffer[]): string[] => frames.map((frame) => frame.toString("hex"));

/** The client's side of a connection, as bytes. */
export class Wire {
  readonly #socket: Duplex;
  #received: Buffer = Buffer.alloc(0);
  closed = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#received = join(this.#received, chunk);
    });
    socket.on("error", () => {});
    const ended = (): void => {
      this.closed = true;
      socket.end(); // as a TCP client does that is not half open
    };
    socket.on("end", ended).on("close", ended);
  }

  /** All in one write. */
  send(...packets: readonly Bytes[]): void {
    if (!this.#socket.destroyed) this.#socket.write(join(...packets));
  }

  /** As a cable that is pulled. The server has seen it then: before that it may send still, and DUP would be 1 the next time. */
  async drop(): Promise<void> {
    this.#socket.destroy();
    await turns();
  }

  /** The complete packets that have come so far, taken out. */
  async take(): Promise<Buffer[]> {
    await turns();
    return this.#frames(Number.POSITIVE_INFINITY);
  }

  /** What came that is a PUBLISH, taken out with all else. */
  async deliveries(): Promise<Delivery[]> {
    return (await this.take()).map(delivery).filter((seen) => seen !== undefined);
  }

  /** The next packets are exactly these; what comes after them stays. */
  async gets(...expected: readonly Bytes[]): Promise<void> {
    const length = expected.reduce((sum, { length }) => sum + length, 0);
    await this.#until(() => this.#received.length >= length || this.closed);
    expect(shown(this.#frames(expected.length))).to.deep.equal(shown(expected.map((bytes) => Buffer.from(bytes))));
  }

  /** The next packet is this PUBLISH, its packet id of the server's choice. Gives the id, 0 for QoS 0. */
  async receives(topic: string | Bytes, payload: string | Bytes, options: Publish = {}): Promise<number> {
    await this.#until(() => frameLength(this.#received) !== undefined || this.closed);
    const [frame] = this.#frames(1);
    const id = frame === undefined ? 0 : (delivery(frame)?.id ?? 0);
    expect(frame?.toString("hex")).to.equal(publish(topic, payload, { ...options, id }).toString("hex"));
    if ((options.qos ?? 0) > 0) expect(id, "packet id").to.be.greaterThan(0);
    return id;
  }

  /** Nothing comes, and the connection stays. */
  async quiet(): Promise<void> {
    expect(shown(await this.take())).to.deep.equal([]);
    expect(this.#received.toString("hex"), "part of a packet").to.equal("");
    expect(this.closed, "closed").to.equal(false);
  }

  /** The broker ends the connection, and sends exactly these packets before. */
  async ends(...expected: readonly Bytes[]): Promise<void> {
    await this.#until(() => this.closed);
    await turns(); // what came before the end is read
    expect(this.#received.toString("hex")).to.equal(join(...expected).toString("hex"));
    expect(this.closed, "closed").to.equal(true);
    this.#received = Buffer.alloc(0);
  }

  /** It is served still. */
  async lives(): Promise<void> {
    this.send(pingreq);
    await this.gets(pingresp);
  }

  /** Says DISCONNECT and waits until that is over. */
  async leave(): Promise<void> {
    this.send(disconnect);
    await this.#until(() => this.closed);
    this.#received = Buffer.alloc(0);
  }

  #frames(max: number): Buffer[] {
    const frames: Buffer[] = [];
    while (frames.length < max) {
      const length = frameLength(this.#received);
      if (length === undefined) break;
      frames.push(this.#received.subarray(0, length));
      this.#received = this.#received.subarray(length);
    }
    return frames;
  }

  /** Or until it counts as never: what the caller asserts then shows what is missing. */
  async #until(holds: () => boolean): Promise<void> {
    const deadline = performance.now() + comesMsMax;
    while (!holds() && performance.now() < deadline) await turns(1);
  }
}

/** A broker and its clients; `restart` puts a new broker on what the old one made durable. */
export class World {
  rig: Rig;
  readonly #options: RigOptions;

  constructor(options: RigOptions = {}) {
    this.#options = options;
    this.rig = new Rig(options);
  }

  /** Connected, nothing sent. */
  open(): Wire {
    const [near, far] = duplexPair();
    near.once("close", () => far.destroy()); // duplexPair does not tell the other side
    far.once("close", () => near.destroy());
    this.rig.broker.attach(near);
    return new Wire(far);
  }

  /** With its CONNACK read, which accepts; `present`: it must (or must not) say that a session was there. */
  async join(clientId: string, options: Connect = {}, present = false): Promise<Wire> {
    const wire = this.open();
    wire.send(connect(clientId, options));
    await wire.gets(connack(0, present));
    return wire;
  }

  /** A clean client with these subscriptions, all granted. Retained messages may precede a SUBACK; this server sends them after it. */
  async subscriber(clientId: string, ...wishes: readonly Wish[]): Promise<Wire> {
    const wire = await this.join(clientId);
    await subscribed(wire, ...wishes);
    return wire;
  }

  /** A session with these subscriptions, its client gone. */
  async asleep(clientId: string, ...wishes: readonly Wish[]): Promise<void> {
    const wire = await this.join(clientId, durable);
    await subscribed(wire, ...wishes);
    await wire.drop();
  }

  /** Stops the broker in good order and starts another on its store. */
  async restart(): Promise<void> {
    await this.rig.close();
    await this.rig.store.close();
    const store = this.rig.store.crash();
    store.timeMs = this.rig.store.timeMs;
    this.rig = new Rig({ ...this.#options, store });
  }

  close(): Promise<void> {
    return this.rig.close();
  }
}

export async function subscribed(wire: Wire, ...wishes: readonly Wish[]): Promise<void> {
  wire.send(subscribe(900, ...wishes));
  await wire.gets(suback(900, ...wishes.map(([, qos]) => qos)));
}

/** Publishes with QoS 1 and waits for the PUBACK. */
export async function published(wire: Wire, topic: string, payload: string, more: Publish = {}): Promise<void> {
  wire.send(publish(topic, payload, { qos: 1, id: 801, ...more }));
  await wire.gets(puback(more.id ?? 801));
}

/** Publishes with QoS 2 through to the PUBCOMP. */
export async function publishedExactlyOnce(
  wire: Wire,
  topic: string,
  payload: string,
  more: Publish = {},
): Promise<void> {
  const { id = 802 } = more;
  wire.send(publish(topic, payload, { ...more, qos: 2, id }));
  await wire.gets(pubrec(id));
  wire.send(pubrel(id));
  await wire.gets(pubcomp(id));
}

/** Publishes and goes through the exchange of its QoS. */
export async function complete(
  wire: Wire,
  topic: string,
  payload: string,
  qos: Qos,
  more: Publish = {},
): Promise<void> {
  if (qos === 2) return publishedExactlyOnce(wire, topic, payload, more);
  if (qos === 1) return published(wire, topic, payload, more);
  wire.send(publish(topic, payload, more));
  await wire.lives(); // so the server has taken it
}

const will: Will = { topic: "will/of/the/faulty", payload: "gone" };

/**
 * A client that is served sends this: its connection must end without an answer, and others must see its will and nothing else.
 * `before` are packets it sends first, and what they are answered with.
 */
export async function violation(
  world: World,
  fault: Bytes,
  before: { sends: readonly Bytes[]; gets: readonly Bytes[] } = { sends: [], gets: [] },
): Promise<void> {
  const watcher = await world.subscriber("watcher", ["#", 2]);
  const faulty = await world.join("faulty", { will });
  faulty.send(...before.sends);
  await faulty.gets(...before.gets);
  faulty.send(fault);
  await faulty.ends();
  await watcher.gets(publish(will.topic, will.payload ?? ""));
  await watcher.lives();
}

/** A CONNECT that is not as it must be: the connection ends without CONNACK, nobody sees anything, and nothing of it is kept. */
export async function refusedSilently(world: World, bytes: Bytes): Promise<void> {
  const watcher = await world.subscriber("watcher", ["#", 2]);
  const faulty = world.open();
  faulty.send(bytes);
  await faulty.ends();
  await watcher.lives();
  expect(world.rig.broker.stats()).to.include({ connections: 1, sessions: 1 });
}

/** `describe` with a world of its own for each test. */
export function chapter(title: string, tests: (world: () => World) => void, options: RigOptions = {}): void {
  describe(title.startsWith("MQTT 3.1:") ? title : `MQTT 3.1.1, ${title}`, () => {
    let world: World;
    beforeEach(() => {
      world = new World(options);
    });
    afterEach(() => world.close());
    tests(() => world);
  });
}
