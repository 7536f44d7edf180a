import { connect, type Socket } from "node:net";
import { expect } from "chai";
import { generate, type Packet, parser } from "mqtt-packet";
import { systemClock } from "../../../src/base/clock.ts";
import { connectPacket } from "../../helpers/brokerRig.ts";
import { openBroker } from "../../helpers/openBroker.ts";
import { until } from "../../helpers/wait.ts";

const unread = "tidegate_mqtt_unread_bytes";
const clients = 40;

interface Caller {
  readonly socket: Socket;
  readonly received: Packet[];
  closed: boolean;
}

/** A broker for whom each look at the clock takes so long that all chunks but a few wait for later turns. */
function slowBroker(limits: { partialBytes?: number } = {}) {
  let nowMs = 0;
  return openBroker({ clock: { ...systemClock, monotonicMs: () => (nowMs += 1) }, limits });
}

async function call(port: number, id: string): Promise<Caller> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  const caller: Caller = { socket, received: [], closed: false };
  const parse = parser();
  parse.on("packet", (packet: Packet) => caller.received.push(packet));
  socket.on("data", (chunk) => parse.parse(chunk));
  socket.on("error", () => {});
  socket.on("close", () => (caller.closed = true));
  socket.write(generate(connectPacket(4, id)));
  await until("it is connected", () => caller.received.length > 0);
  caller.received.length = 0;
  return caller;
}

const callAll = (port: number): Promise<Caller[]> =>
  Promise.all(Array.from({ length: clients }, (_, n) => call(port, `c${n}`)));

interface Handle {
  readStop(): number;
}

/** How often a socket of this process was stopped while `work` went on. */
async function stopsDuring(socket: Socket, work: () => Promise<void>): Promise<number> {
  let prototype = Object.getPrototypeOf((socket as unknown as { _handle: Handle })._handle) as Handle;
  while (!Object.hasOwn(prototype, "readStop")) prototype = Object.getPrototypeOf(prototype) as Handle;
  const { readStop } = prototype;
  let stops = 0;
  prototype.readStop = function (this: Handle) {
    stops += 1;
    return readStop.call(this);
  };
  try {
    await work();
  } finally {
    prototype.readStop = readStop;
  }
  return stops;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const publish = (topic: string, n: number): Buffer =>
  generate({ cmd: "publish", topic, payload: String(n), qos: 0, messageId: 1, retain: false, dup: false });

describe("who waits in line with few bytes", () => {
  it("is not stopped: that and to read on again would be two system calls for each message", async () => {
    const { broker, metric } = slowBroker();
    const { port } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
    const all = await callAll(port);
    let waited = 0;
    const stops = await stopsDuring(all[0]!.socket, async () => {
      for (const { socket } of all) socket.write(Buffer.from([0xc0, 0]));
      while (!all.every(({ received }) => received.length === 1)) {
        await turn();
        waited = Math.max(waited, metric(unread));
      }
    });
    expect(waited).to.be.above(0);
    expect(stops).to.equal(0);
    for (const { socket } of all) socket.destroy();
    await broker.close();
  });

  it("is stopped once more has come, and all is heard in order to its DISCONNECT; what waits is counted", async () => {
    const { broker, metric } = slowBroker();
    const { port } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
    const watcher = await call(port, "watcher");
    watcher.socket.write(generate({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 0 }] }));
    await until("it is subscribed", () => watcher.received.length === 1);
    const all = await callAll(port);
    const each = 30;
    const stops = await stopsDuring(watcher.socket, async () => {
      for (let n = 0; n < each; n += 1) {
        for (const [at, { socket }] of all.entries()) socket.write(publish(`t/${at}`, n));
        await turn();
      }
      for (const { socket } of all) socket.end(Buffer.from([0xe0, 0]));
      await until("all have gone", () => all.every(({ closed }) => closed));
    });
    expect(stops).to.be.above(0);
    await until("all has come", () => watcher.received.length === 1 + clients * each);
    const came = watcher.received.flatMap((packet) => (packet.cmd === "publish" ? [packet] : []));
    for (let at = 0; at < clients; at += 1) {
      const numbers = came.filter(({ topic }) => topic === `t/${at}`).map(({ payload }) => Number(payload));
      expect(numbers).to.deep.equal(Array.from({ length: each }, (_, n) => n));
    }
    expect(metric(unread)).to.equal(0);
    watcher.socket.destroy();
    await broker.close();
  });

  it("reads no more, as all others, once what waits takes its memory; nobody is closed", async () => {
    const room = 16 * 1024;
    const { broker, metric } = slowBroker({ partialBytes: 4 * room });
    const { port } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
    const all = await callAll(port);
    const pings = 500;
    const rounds = 20;
    let most = 0;
    for (let round = 0; round < rounds; round += 1) {
      for (const { socket } of all) socket.write(Buffer.alloc(2 * pings, "c000", "hex"));
      await turn();
      most = Math.max(most, metric(unread));
    }
    while (!all.every(({ received }) => received.length === pings * rounds)) {
      await turn();
      most = Math.max(most, metric(unread));
    }
    expect(most).to.be.within(room / 2, room + 64 * 1024); // a chunk more, which is how it becomes known
    expect(all.filter(({ closed }) => closed)).to.deep.equal([]);
    expect(metric(unread)).to.equal(0);
    for (const { socket } of all) socket.destroy();
    await broker.close();
  });
});
