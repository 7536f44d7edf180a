/** Connections that speak bytes, and what tests of faults share. */
import { type Duplex, duplexPair } from "node:stream";
import { expect } from "chai";
import { Rig, type RigOptions, turns } from "../../helpers/brokerRig.ts";
import { comesMsMax } from "../../helpers/wait.ts";
import {
  ack,
  type Connect,
  connect,
  type Filter,
  P,
  type Property,
  type Publish,
  pingreq,
  publish,
  subscribe,
} from "./frames.ts";
import { firstLength, type Kind, line, read, type Seen } from "./seen.ts";

export { Rig, type RigOptions, turns };

/** A client that does only what the test says. What it receives is read strictly. */
export class Peer {
  readonly #socket: Duplex;
  #bytes = Buffer.alloc(0);
  #inbox: Seen[] = [];
  #lastId = 0;
  closed = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
    });
    socket.on("error", () => {});
    const ended = (): void => {
      this.closed = true;
      socket.end();
    };
    socket.on("end", ended);
    socket.on("close", ended);
  }

  send(...parts: readonly Uint8Array[]): void {
    if (!this.#socket.destroyed) this.#socket.write(Buffer.concat(parts));
  }

  publish(topic: string, payload = "x", more: Publish = {}): void {
    this.send(publish(topic, payload, more));
  }

  /** As a cable that is pulled. */
  async drop(): Promise<void> {
    this.#socket.destroy();
    await turns();
  }

  /** Closes as TCP does, without a DISCONNECT. */
  end(): void {
    this.#socket.end();
  }

  /** All that came so far. */
  async take(): Promise<Seen[]> {
    await turns();
    this.#read();
    return this.#inbox.splice(0);
  }

  /** The bytes that nobody has read yet, as hex: for what is not of version 5. */
  async hex(): Promise<string> {
    await turns();
    return this.#bytes.toString("hex");
  }

  /** All that came so far, a line each. */
  async says(): Promise<string[]> {
    return (await this.take()).map(line);
  }

  /** The first packet of this kind that is there or comes; those before it stay. */
  async next(kind: Kind): Promise<Seen> {
    const deadline = performance.now() + comesMsMax;
    for (;;) {
      this.#read();
      const at = this.#inbox.findIndex((seen) => seen.kind === kind);
      const [found] = at < 0 ? [] : this.#inbox.splice(at, 1);
      if (found !== undefined) return found;
      if (performance.now() > deadline) throw new Error(`no ${kind} came; got: ${this.#inbox.map(line).join("; ")}`);
      await turns(1);
    }
  }

  /** The next `count` PUBLISH packets, and no other packet may come. */
  async publishes(count: number): Promise<Seen[]> {
    const got = await this.take();
    expect(got.map(({ kind }) => kind)).to.deep.equal(new Array(count).fill("PUBLISH"), got.map(line).join("; "));
    return got;
  }

  /** Sends one SUBSCRIBE and takes its SUBACK out. */
  async subscribe(
    filters: string | readonly Filter[],
    options = 0,
    props: readonly Property[] = [],
  ): Promise<number[]> {
    this.#lastId += 1;
    const id = 40_000 + this.#lastId;
    this.send(subscribe(id, typeof filters === "string" ? [[filters, options]] : filters, props));
    const suback = await this.next("SUBACK");
    expect(suback.id).to.equal(id);
    return [...suback.codes];
  }

  /** Until the broker has ended the connection. */
  async gone(): Promise<void> {
    const deadline = performance.now() + comesMsMax;
    while (!this.closed) {
      if (performance.now() > deadline) throw new Error("still connected");
      await turns(1);
    }
    await turns();
  }

  /** Still served. */
  async alive(): Promise<void> {
    this.send(pingreq);
    await this.next("PINGRESP");
  }

  #read(): void {
    for (let length = firstLength(this.#bytes); length !== undefined; length = firstLength(this.#bytes)) {
      this.#inbox.push(read(this.#bytes.subarray(0, length)));
      this.#bytes = this.#bytes.subarray(length);
    }
    if (this.closed && this.#bytes.length > 0) throw new Error(`half a packet: ${this.#bytes.toString("hex")}`);
  }
}

export function open(rig: Rig): Peer {
  const [near, far] = duplexPair({ highWaterMark: 65_536 });
  near.once("close", () => far.destroy()); // duplexPair does not tell the other side
  far.once("close", () => near.destroy());
  rig.broker.attach(near);
  return new Peer(far);
}

/** Connected; its CONNACK was 0x00. */
export async function joined(rig: Rig, id = "c", fields: Connect = {}): Promise<Peer> {
  return (await welcomed(rig, id, fields)).peer;
}

/** Connected, with its CONNACK. */
export async function welcomed(rig: Rig, id = "c", fields: Connect = {}): Promise<{ peer: Peer; connack: Seen }> {
  const peer = open(rig);
  peer.send(connect({ id, ...fields }));
  const connack = await peer.next("CONNACK");
  expect(connack.codes).to.deep.equal([0]);
  return { peer, connack };
}

/** CONNECT fields of a session that outlives its connection by an hour. */
export const kept: Connect = { clean: false, properties: [[P.sessionExpiry, 3600]] };

export const keptWith = (...more: readonly Property[]): Connect => ({
  clean: false,
  properties: [[P.sessionExpiry, 3600], ...more],
});

/** Runs with a broker of its own. */
export function withRig(test: (rig: Rig) => Promise<void>, options: RigOptions = {}): () => Promise<void> {
  return async () => {
    const rig = new Rig(options);
    try {
      await test(rig);
    } finally {
      await rig.close();
    }
  };
}

/** Sees every message, as a witness of what happened and what did not. */
export async function witness(rig: Rig): Promise<Peer> {
  const peer = await joined(rig, "witness");
  expect(await peer.subscribe("#", 2)).to.deep.equal([2]);
  return peer;
}

/**
 * A fault of a connected client: one DISCONNECT with one of these codes and nothing after it, the connection closed, nothing published but the
 * will, and all others served on.
 */
export async function fault(
  rig: Rig,
  bytes: Uint8Array,
  codes: readonly number[],
  fields: Connect = {},
): Promise<void> {
  const seen = await witness(rig);
  const peer = await joined(rig, "faulty", { will: { topic: "will", payload: "w" }, ...fields });
  peer.send(bytes);
  await peer.gone();
  const got = await peer.take();
  expect(got.map(({ kind }) => kind)).to.deep.equal(["DISCONNECT"]);
  expect(codes, `got ${got.map(line)}`).to.include(got[0]?.codes[0]);
  expect(await seen.says()).to.deep.equal(["PUBLISH q0 will=w"]);
  await seen.alive();
}

/**
 * A CONNECT that is refused: no session, nothing published, the connection closed, and at most (4.13.1 leaves the server the choice) one
 * CONNACK with one of these codes.
 */
export async function refused(rig: Rig, bytes: Uint8Array, codes: readonly number[]): Promise<void> {
  const seen = await witness(rig);
  const before = { ...rig.broker.stats() };
  const peer = open(rig);
  peer.send(bytes);
  await peer.gone();
  await refusal(peer, codes);
  expect(rig.broker.stats()).to.include({ sessions: before.sessions, connections: before.connections });
  expect(await seen.says()).to.deep.equal([]);
}

/** What a refused client got: nothing, or one CONNACK with one of these codes. */
export async function refusal(peer: Peer, codes: readonly number[]): Promise<void> {
  const hex = codes.map((code) => `CONNACK ${code.toString(16)}`);
  expect(["", ...hex]).to.include((await peer.says()).join());
}

/** Topics as a client with a Topic Alias Maximum knows them. */
export function resolved(list: readonly Seen[], aliases = new Map<number, string>()): string[] {
  return list.map((seen) => {
    const alias = seen.properties.find(([id]) => id === P.alias)?.[1] as number | undefined;
    if (alias !== undefined && seen.topic !== "") aliases.set(alias, seen.topic);
    const topic = seen.topic === "" && alias !== undefined ? aliases.get(alias) : seen.topic;
    if (topic === undefined || topic === "") throw new Error(`no topic: ${line(seen)}`);
    return topic;
  });
}

/** Acknowledges these PUBLISH packets to the end, as their QoS wants it. */
export async function acknowledge(peer: Peer, list: readonly Seen[]): Promise<void> {
  for (const { qos, id } of list) {
    if (qos === 1) peer.send(ack("puback", id));
    if (qos !== 2) continue;
    peer.send(ack("pubrec", id));
    expect((await peer.next("PUBREL")).id).to.equal(id);
    peer.send(ack("pubcomp", id));
  }
}

/** A failure in the SUBACK, or the end of the connection by an error that fits. */
export async function notGranted(rig: Rig, filter: string, options = 0): Promise<void> {
  const peer = await joined(rig);
  peer.send(
    subscribe(9, [
      ["before", 0],
      [filter, options],
    ]),
  );
  const got = await peer.take();
  const [answer] = got;
  expect(got.length).to.equal(1);
  if (answer?.kind === "SUBACK") {
    expect([answer.id, answer.codes[0], answer.codes.length]).to.deep.equal([9, 0, 2]);
    expect([0x80, 0x8f]).to.include(answer.codes[1]);
  } else {
    expect(answer?.kind).to.equal("DISCONNECT");
    expect([0x81, 0x82, 0x8f]).to.include(answer?.codes[0]);
    await peer.gone();
  }
}
