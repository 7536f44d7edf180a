import { createServer, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { expect } from "chai";
import fc from "fast-check";
import { connectAsync } from "mqtt";
import { generate } from "mqtt-packet";
import type { Broker } from "../../../src/broker/options.ts";
import { Rig } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { type OpenBroker, openBroker } from "../../helpers/openBroker.ts";
import { frame, opcode, RawWebSocket } from "../../helpers/rawWebSocket.ts";
import { TestCa } from "../../helpers/testCa.ts";
import { until } from "../../helpers/wait.ts";

const hello = (clientId: string): Buffer =>
  generate({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clientId, clean: true, keepalive: 0 });
const subscribe = (topic: string): Buffer =>
  generate({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos: 0 }] });

describe("WebSocket listeners", () => {
  let open: OpenBroker;
  let broker: Broker;
  let port: number;
  const clients: RawWebSocket[] = [];
  const rigs: Rig[] = [];

  async function start(limits: Parameters<typeof openBroker>[0] = {}): Promise<void> {
    await broker?.close();
    open = openBroker(limits);
    broker = open.broker;
    ({ port } = await broker.listen({ url: "ws://127.0.0.1:0/mqtt" }));
  }
  beforeEach(() => start());
  afterEach(async () => {
    for (const client of clients.splice(0)) client.drop();
    await broker.close();
    for (const rig of rigs.splice(0)) await rig.close();
  });
  const kept = (client: RawWebSocket): RawWebSocket => {
    clients.push(client);
    return client;
  };
  const opened = async (): Promise<RawWebSocket> => kept(await RawWebSocket.open(port));

  for (const protocolVersion of [4, 5] as const) {
    it(`a client of MQTT ${protocolVersion} publishes and subscribes at each QoS, small and large`, async () => {
      const client = await connectAsync(`ws://127.0.0.1:${port}/mqtt`, { protocolVersion, reconnectPeriod: 0 });
      const got: Buffer[] = [];
      client.on("message", (_topic, payload) => got.push(payload));
      await client.subscribeAsync("t", { qos: 2 });
      const payloads = [10, 200, 70_000, 1_000_000].map((size) => Buffer.alloc(size, size % 251));
      for (const payload of payloads)
        for (const qos of [0, 1, 2] as const) await client.publishAsync("t", payload, { qos });
      await until("all of them", () => got.length === 12);
      expect(got.map((payload) => payload.length)).to.have.members(
        payloads.flatMap(({ length }) => [length, length, length]),
      );
      expect(got.every((payload) => payloads.some((sent) => sent.equals(payload)))).to.equal(true);
      await client.endAsync();
      await until("it is gone", () => broker.stats().connections === 0);
    });
  }

  it("over TLS, with the client's certificate", async () => {
    const ca = TestCa.make();
    if (ca === undefined) return;
    await start({ anonymous: false });
    const tls = { ...ca.issue("/CN=server"), ca: ca.ca, clientCert: "required" as const };
    const { url } = await broker.listen({ url: "wss://127.0.0.1:0/deep/path", tls });
    expect(url).to.match(/^wss:\/\/127\.0\.0\.1:\d+\/deep\/path$/);
    const { cert, key } = ca.issue("/CN=client");
    const client = await connectAsync(url, { ca: ca.ca, cert, key, reconnectPeriod: 0 });
    await client.publishAsync("t", "x", { qos: 1 });
    await client.endAsync();
    ca.remove();
  });

  it("another path, no upgrade, a wrong handshake: answered, closed, counted", async () => {
    for (const [path, headers, status] of [
      ["/other", {}, 404],
      ["/mqtt/", {}, 404],
      ["/", {}, 404],
      ["/mqtt", { Upgrade: undefined, Connection: undefined }, 426],
      ["/x", { Upgrade: undefined, Connection: undefined }, 404],
      ["/mqtt", { Upgrade: "h2c" }, 400],
      ["/mqtt", { "Sec-WebSocket-Key": "short" }, 400],
      ["/mqtt", { "Sec-WebSocket-Key": undefined }, 400],
      ["/mqtt", { "Sec-WebSocket-Version": "12" }, 400],
      ["/mqtt", { Big: "x".repeat(9000) }, 400],
    ] as const) {
      const before = open.refused("websocket");
      const client = kept(RawWebSocket.request(port, path, headers));
      expect(await client.status(), `${path} ${JSON.stringify(headers).slice(0, 80)}`).to.equal(status);
      await until("it is closed", () => client.socket.destroyed);
      await until("it is counted", () => open.refused("websocket") > before);
      expect(open.refused("websocket")).to.equal(before + 1);
    }
    expect(await kept(RawWebSocket.request(port, "/mqtt?token=1")).status()).to.equal(101);
  });

  it("what is no HTTP at all is closed and counted, and no more of it kept", async () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 3000 });
    await fc.assert(
      fc.asyncProperty(bytes, fc.constantFrom("", "GET /mqtt HTTP/1.1\r\n", "\r\n"), async (rest, start) => {
        const socket = connect(port, "127.0.0.1").on("error", () => {});
        socket.write(Buffer.concat([Buffer.from(start), rest]));
        socket.end();
        await until("it is closed", () => socket.resume().destroyed);
      }),
      { numRuns: 50 },
    );
    expect(open.refused("websocket")).to.equal(50);
  });

  it("messages of which only a part has come count as incomplete packets: the oldest gives way", async () => {
    await start({ limits: { partialBytes: 1000 * 1024 } });
    const part = frame(opcode.binary, Buffer.alloc(500 * 1024)).subarray(0, 300 * 1024);
    const clients: RawWebSocket[] = [];
    for (let n = 0; n < 3; n += 1) {
      clients.push(await opened());
      clients[n]!.socket.write(frame(opcode.binary, hello(`c${n}`)));
      clients[n]!.socket.write(part);
      await until("it is read", () => clients[n]!.socket.bytesWritten > part.length);
    }
    const last = await opened();
    last.socket.write(part);
    await until("one has given way", () => clients.some(({ socket }) => socket.destroyed));
    expect(open.faults("incomplete")).to.equal(1);
    expect(clients.filter(({ socket }) => socket.destroyed)).to.have.length(1);
    expect(last.socket.destroyed).to.equal(false);
  });

  it("the limits count before the handshake", async () => {
    await start({ limits: { maxConnectionsPerAddress: 2 } });
    const silent = [0, 1].map(() => connect(port, "127.0.0.1").on("error", () => {}));
    await until("two are in", () => silent.every((socket) => socket.readyState === "open"));
    const third = kept(RawWebSocket.request(port));
    await until("the third is out", () => third.socket.destroyed);
    expect(third.answer).to.equal(undefined);
    expect(open.refused("max-per-address")).to.equal(1);
    for (const socket of silent) socket.destroy();
    await until("there is room", async () => (await RawWebSocket.open(port).then(kept, () => undefined)) !== undefined);
  });

  describe("frames that break the rules close the connection, and are counted", () => {
    const cases: Array<[what: string, bytes: Buffer, code: number]> = [
      ["no mask", frame(opcode.binary, Buffer.from("x"), { masked: false }), 1002],
      ["a reserved bit", Buffer.concat([Buffer.of(0xc2), frame(opcode.binary, Buffer.from("x")).subarray(1)]), 1002],
      ["an unknown opcode", frame(3, Buffer.alloc(0)), 1002],
      ["a continuation of nothing", frame(opcode.continuation, Buffer.from("x")), 1002],
      [
        "a message in a message",
        Buffer.concat([frame(2, Buffer.from("\u0010"), { fin: false }), frame(2, Buffer.of(1))]),
        1002,
      ],
      ["a long ping", frame(opcode.ping, Buffer.alloc(126)), 1002],
      ["a ping in pieces", frame(opcode.ping, Buffer.alloc(1), { fin: false }), 1002],
      ["a close code that there is not", frame(opcode.close, Buffer.of(3, 237)), 1002],
      ["text", frame(opcode.text, Buffer.from("x")), 1003],
      ["a frame above what is kept, refused from its header", Buffer.from("82ff0000000000200001", "hex"), 1009],
    ];
    for (const [what, bytes, code] of cases) {
      it(what, async () => {
        const client = await opened();
        client.socket.write(Buffer.concat([bytes, Buffer.alloc(4)]));
        const [first] = await until("a close frame", () => {
          const frames = client.frames();
          return frames.length > 0 && frames;
        });
        expect([first?.opcode, first?.payload.readUInt16BE(0)]).to.deep.equal([opcode.close, code]);
        await until("it is closed", () => client.socket.destroyed, 900); // before the time that a peer has for its close frame
        expect(open.faults("websocket")).to.equal(1);
      });
    }

    it("property: random bytes behind the handshake end it, or wait; nothing is thrown", async () => {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 300 }), async (bytes) => {
          const client = await opened();
          client.socket.write(bytes);
          client.socket.end();
          await until("it is closed", () => client.socket.resume().destroyed);
        }),
        { numRuns: 60 },
      );
      const good = await opened();
      good.socket.write(frame(opcode.binary, hello("after")));
      await until("CONNACK", () => good.frames().length > 0);
    });
  });

  it("who never reads costs no more than its outbox, and hears the next ones when it reads again", async () => {
    await start({ limits: { outboxBytes: 64 * 1024 } });
    const slow = await opened();
    slow.socket.write(frame(opcode.binary, Buffer.concat([hello("slow"), subscribe("t")])));
    await until("SUBACK", () => slow.frames().length >= 1 && broker.stats().subscriptions === 1);
    slow.socket.pause();
    const payload = Buffer.alloc(10_000);
    const dropped = (): number => broker.stats().dropped["outbox-full"] ?? 0;
    await until("some are dropped", async () => {
      for (let n = 0; n < 100; n += 1) broker.publish({ topic: "t", payload, qos: 0, retain: false, source: "test" });
      await new Promise((resolve) => setImmediate(resolve));
      return dropped() > 200;
    });
    const received = (): number => slow.bytes.length;
    slow.bytes = Buffer.alloc(0);
    slow.socket.resume();
    const before = received();
    await until("what had room", () => received() > before + 64 * 1024);
    await until("the next one comes", async () => {
      broker.publish({ topic: "t", payload: Buffer.from("the next one"), qos: 0, retain: false, source: "test" });
      await new Promise((resolve) => setTimeout(resolve, 10));
      return slow.bytes.includes("the next one");
    });
  });

  it("whose packets are not taken for now is not read any more: its bytes stay in TCP", async () => {
    const store = new MemoryStore({ hold: true });
    const rig = new Rig({ store, limits: { receiveMaximum: 4 } });
    rigs.push(rig);
    ({ port } = await rig.broker.listen({ url: "ws://127.0.0.1:0/mqtt" }));
    const client = await opened();
    client.socket.write(frame(opcode.binary, hello("c")));
    const payload = Buffer.alloc(50_000, 7);
    let count = 0;
    const publish = (): void => {
      count += 1;
      const packet = { topic: "t", payload, qos: 1, retain: true, dup: false, messageId: count } as const;
      client.socket.write(frame(opcode.binary, generate({ cmd: "publish", ...packet })));
    };
    let before = -1;
    await until("nothing more is taken", async () => {
      while (!client.socket.writableNeedDrain && count < 2000) publish();
      const { bytesWritten, writableLength } = client.socket;
      const stands = writableLength > 0 && bytesWritten - writableLength === before;
      before = bytesWritten - writableLength;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return stands;
    });
    expect(count).to.be.lessThan(2000);
    expect(store.commits).to.be.lessThan(10);
    store.hold = false;
    store.settle();
    const acks = (): number =>
      client.frames().reduce((sum, { payload: bytes }) => sum + Math.floor(bytes.length / 4), 0);
    let acknowledged = -1; // CONNACK has four bytes as well
    await until("every one is acknowledged", () => {
      acknowledged += acks();
      return acknowledged === count;
    });
  });

  it("pings without reading the pongs end the connection", async () => {
    const client = await opened();
    client.socket.pause();
    const ping = frame(opcode.ping, Buffer.alloc(125));
    const pings = Buffer.concat(Array.from({ length: 500 }, () => ping));
    await until("it was ended", async () => {
      if (!client.socket.destroyed) client.socket.write(pings);
      await new Promise((resolve) => setImmediate(resolve));
      return client.socket.destroyed || client.socket.errored !== null;
    });
  });

  it("what a client sent before it went away without a word still counts", async () => {
    const got: string[] = [];
    broker.subscribe("t", ({ payload }) => {
      got.push(Buffer.from(payload).toString());
      return undefined;
    });
    const client = await opened();
    const publish = generate({ cmd: "publish", topic: "t", payload: "last words", qos: 0, retain: false, dup: false });
    client.socket.end(frame(opcode.binary, Buffer.concat([hello("c"), publish])));
    await until("it came", () => got.length === 1);
    await until("it is gone", () => broker.stats().connections === 0);
  });

  it("closing the broker tells the client, and does not wait for who does not answer", async () => {
    const client = await opened();
    client.socket.write(frame(opcode.binary, hello("c")));
    await until("CONNACK", () => client.frames().length === 1);
    const fromMs = performance.now();
    const closing = broker.close();
    await until("a close frame", () => client.frames().some(({ opcode: code }) => code === opcode.close));
    await closing;
    expect(performance.now() - fromMs).to.be.lessThan(3000);
  });

  describe("on an HTTP server's upgrade", () => {
    let http: Server;
    beforeEach(async () => {
      http = createServer();
      http.on("upgrade", (request, socket, head) => broker.upgrade(request, socket, head, "http://h/mqtt"));
      await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
      ({ port } = http.address() as AddressInfo);
    });
    afterEach(() => http.close());

    it("a client comes in with its address; the limits and the subprotocol are asked", async () => {
      await start({ limits: { maxConnectionsPerAddress: 2 } });
      ({ port } = http.address() as AddressInfo);
      const client = await connectAsync(`ws://127.0.0.1:${port}/mqtt`, { reconnectPeriod: 0, clientId: "c" });
      expect([...broker.clients()].map(({ clientId, address }) => [clientId, address])).to.deep.equal([
        ["c", "127.0.0.1"],
      ]);
      const without = kept(RawWebSocket.request(port, "/mqtt", { "Sec-WebSocket-Protocol": "chat" }));
      expect(await without.status()).to.equal(400);
      await until("it is closed", () => without.socket.destroyed);
      expect(open.refused("websocket")).to.equal(1);
      await opened();
      const third = kept(RawWebSocket.request(port));
      await until("the third is out", () => third.socket.destroyed);
      expect(open.refused("max-per-address")).to.equal(1);
      await client.endAsync();
    });

    it("what came behind the request is not lost", async () => {
      const request = [
        "GET /mqtt HTTP/1.1",
        "Host: h",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
        "\r\n",
      ].join("\r\n");
      const socket = connect(port, "127.0.0.1").on("error", () => {});
      socket.write(Buffer.concat([Buffer.from(request), frame(opcode.binary, hello("early"))]));
      await until("it is in", () => [...broker.clients()].some(({ clientId }) => clientId === "early"));
      socket.destroy();
    });
  });
});
