import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { expect } from "chai";
import { generate } from "mqtt-packet";
import { WebSocket } from "ws";
import type { ListenerTls } from "../../../src/broker/options.ts";
import { ManualClock } from "../../helpers/brokerRig.ts";
import { type OpenBroker, openBroker } from "../../helpers/openBroker.ts";
import { OpenDoors } from "../../helpers/openDoors.ts";
import { TestCa } from "../../helpers/testCa.ts";
import { until } from "../../helpers/wait.ts";

const connectPacket = (clientId: string): Buffer =>
  generate({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clientId, clean: true, keepalive: 0 });
const header = (address: string): Buffer => Buffer.from(`PROXY TCP4 ${address} 192.0.2.1 1 1883\r\n`);

describe("the way in", () => {
  let doors: OpenDoors;
  let broker: OpenBroker | undefined;
  let sockets: Socket[];
  let folder: string;
  let ca: TestCa | undefined;
  let tls: ListenerTls | undefined;

  before(() => {
    ca = TestCa.make();
    if (ca !== undefined) tls = { ...ca.issue("/CN=server"), clientCert: "none" };
  });
  after(() => ca?.remove());
  beforeEach(() => {
    sockets = [];
    doors = new OpenDoors();
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  });
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    await doors.close();
    await broker?.broker.close();
    broker = undefined;
    rmSync(folder, { recursive: true, force: true });
  });

  const at = (where: number | string, host = "127.0.0.1"): Socket =>
    kept(typeof where === "number" ? connect(where, host) : connect(where));
  function kept<S extends Socket>(socket: S): S {
    socket.on("error", () => {});
    sockets.push(socket);
    return socket;
  }
  const first = () => until("one is in", () => doors.entered[0]);

  describe("PROXY protocol", () => {
    it("the header's address is the client's, wherever it is cut, and what follows it is MQTT", async () => {
      broker = openBroker();
      const { port } = await broker.broker.listen({ url: "mqtt://127.0.0.1:0", proxyProtocol: true });
      const bytes = Buffer.concat([header("203.0.113.9"), connectPacket("behind")]);
      for (const cut of [1, 6, header("203.0.113.9").length - 1, header("203.0.113.9").length, bytes.length - 1]) {
        const socket = at(port).setNoDelay(true);
        socket.write(bytes.subarray(0, cut));
        await new Promise((resolve) => setTimeout(resolve, 5)); // a packet of its own, mostly
        socket.write(bytes.subarray(cut));
        await until(`CONNACK after a cut at ${cut}`, () => socket.read(4));
        expect([...broker.broker.clients()].map(({ clientId, address }) => [clientId, address])).to.deep.equal([
          ["behind", "203.0.113.9"],
        ]);
        socket.destroy();
        await until("it is gone", () => broker?.broker.stats().connections === 0);
      }
    });

    it("a byte at a time, and everything in one write", async () => {
      const { port } = await doors.open({ url: "mqtt://127.0.0.1:0", proxyProtocol: true });
      const bytes = Buffer.concat([header("203.0.113.9"), Buffer.from("what follows")]);
      const slow = at(port).setNoDelay(true);
      for (const byte of bytes) await new Promise((resolve) => slow.write(Buffer.of(byte), resolve));
      at(port).write(bytes);
      await until("both are in", () => doors.entered.length === 2);
      for (const { stream, peer } of doors.entered) {
        expect(peer.address).to.equal("203.0.113.9");
        let read = "";
        stream.on("data", (chunk: Buffer) => (read += chunk));
        await until("the rest", () => read === "what follows");
      }
    });

    it("before the TLS handshake", async () => {
      if (tls === undefined) return;
      const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls, proxyProtocol: true });
      for (const together of [true, false]) {
        const raw = at(port);
        raw.write(header("203.0.113.9"));
        if (!together) await new Promise((resolve) => setTimeout(resolve, 20));
        kept(connectTls({ socket: raw, rejectUnauthorized: false })).write("hello");
        const { stream, peer } = await first();
        doors.entered.length = 0;
        expect(peer).to.include({ address: "203.0.113.9", certified: false });
        let read = "";
        stream.on("data", (chunk: Buffer) => (read += chunk));
        await until("what was said", () => read === "hello");
        stream.destroy();
      }
    });

    it("before a WebSocket, and before TLS and a WebSocket", async () => {
      const plain = await doors.open({ url: "ws://127.0.0.1:0", proxyProtocol: true });
      const ports = [plain.port];
      if (tls !== undefined)
        ports.push((await doors.open({ url: "wss://127.0.0.1:0", tls, proxyProtocol: true })).port);
      for (const [index, port] of ports.entries()) {
        const raw = at(port);
        raw.write(header("203.0.113.9"));
        const socket = index === 0 ? raw : kept(connectTls({ socket: raw, rejectUnauthorized: false }));
        const webSocket = new WebSocket("ws://h/mqtt", ["mqtt"], { createConnection: () => socket });
        webSocket.on("open", () => webSocket.send("hello", { binary: true }));
        const { stream, peer } = await first();
        doors.entered.length = 0;
        expect(peer.address).to.equal("203.0.113.9");
        let read = "";
        stream.on("data", (chunk: Buffer) => (read += chunk));
        await until("what was said", () => read === "hello");
        stream.destroy();
      }
    });

    it("on a unix socket", async () => {
      const path = join(folder, "s");
      await doors.open({ url: `unix://${path}`, proxyProtocol: true });
      at(path).write(header("203.0.113.9"));
      expect((await first()).peer.address).to.equal("203.0.113.9");
    });

    it("the limit of an address counts the client's address, not the balancer's", async () => {
      await doors.close();
      doors = new OpenDoors({ limits: { maxConnectionsPerAddress: 2 } });
      const { port } = await doors.open({ url: "mqtt://127.0.0.1:0", proxyProtocol: true });
      const opened = Array.from({ length: 6 }, (_, n) => {
        const socket = at(port);
        socket.write(header(`203.0.113.${n % 2}`)); // three of each
        return socket;
      });
      await until("one of each is out", () => opened.filter((socket) => socket.destroyed).length === 2);
      expect(doors.refused("max-per-address")).to.equal(2);
      expect(doors.entered.map(({ peer }) => peer.address).sort()).to.deep.equal([
        "203.0.113.0",
        "203.0.113.0",
        "203.0.113.1",
        "203.0.113.1",
      ]);
      at(port).write("PROXY UNKNOWN\r\n");
      await until("one without an address is in", () => doors.entered.length === 5);
      expect(doors.entered[4]?.peer.address).to.equal(undefined);
    });

    it("a missing or wrong header, or an end before it, closes the connection and is counted once", async () => {
      const { port } = await doors.open({ url: "mqtt://127.0.0.1:0", proxyProtocol: true });
      const wrong = at(port);
      wrong.write(connectPacket("c"));
      await until("it is out", () => wrong.destroyed);
      expect(doors.refused("proxy")).to.equal(1);
      at(port).end("PROXY TCP4 1.2.3.4");
      await until("the end is counted", () => doors.refused("proxy") === 2);
      expect(doors.entered).to.deep.equal([]);
    });

    it("where it is off, a header is a malformed packet", async () => {
      broker = openBroker();
      const { port } = await broker.broker.listen({ url: "mqtt://127.0.0.1:0" });
      const socket = at(port);
      // "PR" reads as the header of a PUBREC of 84 bytes.
      socket.write(Buffer.concat([header("203.0.113.9"), connectPacket("c".repeat(84))]));
      await until("it is out", () => socket.resume().destroyed);
      expect(broker.faults("malformed") + broker.faults("protocol")).to.equal(1);
    });
  });

  describe("connectTimeout", () => {
    for (const [step, scheme, proxyProtocol] of [
      ["PROXY header", "mqtt", true],
      ["TLS handshake", "mqtts", false],
      ["WebSocket handshake", "ws", false],
      ["TLS handshake of a WebSocket", "wss", false],
    ] as const) {
      it(`counts from accept on, and ends who sends no ${step}; its place is free again`, async () => {
        if (tls === undefined) return;
        await doors.close();
        const clock = new ManualClock();
        doors = new OpenDoors({ clock, limits: { maxConnections: 1 } });
        const secured = scheme === "mqtts" || scheme === "wss";
        const options = { url: `${scheme}://127.0.0.1:0`, proxyProtocol, ...(secured ? { tls } : {}) };
        const { port } = await doors.open(options);
        const silent = at(port);
        await until("it is in", () => silent.readyState === "open");
        await until("it has the only place", async () => {
          const second = at(port);
          await until("in or out", () => second.destroyed || second.readyState === "open");
          return until("it is out", () => second.destroyed, 500).catch(() => false as const);
        });
        clock.advance(9_999);
        expect(silent.destroyed).to.equal(false);
        clock.advance(1);
        await until("it was ended", () => silent.destroyed);
        expect(doors.refused("timeout")).to.equal(1);
        const before = doors.refused("max-connections");
        const third = at(port);
        await until("there is room", () => third.readyState === "open");
        clock.advance(10_000);
        await until("it is the time again", () => doors.refused("timeout") === 2);
        expect(doors.refused("max-connections")).to.equal(before);
      });
    }

    it("what was needed for TLS and WebSocket is not to be had again for CONNECT", async () => {
      const clock = new ManualClock();
      await doors.close();
      doors = new OpenDoors({ clock });
      const { port } = await doors.open({ url: "ws://127.0.0.1:0" });
      const raw = at(port);
      await until("connected", () => raw.readyState === "open");
      await until("counted", () => {
        clock.advance(100);
        return clock.monotonicMs() >= 5000;
      });
      new WebSocket("ws://h/mqtt", ["mqtt"], { createConnection: () => raw }).on("error", () => {});
      expect((await first()).peer.waitedMs).to.be.within(4000, 5000);
    });
  });

  describe("addresses", () => {
    it("IPv6, and both families on [::], where an IPv4 client is itself", async () => {
      const six = await doors.open({ url: "mqtt://[::1]:0" });
      expect(six.url).to.equal(`mqtt://[::1]:${six.port}`);
      at(six.port, "::1");
      await until("one", () => doors.entered.length === 1);
      const both = await doors.open({ url: "mqtt://[::]:0" });
      at(both.port, "127.0.0.1");
      await until("two", () => doors.entered.length === 2);
      at(both.port, "::1");
      await until("three", () => doors.entered.length === 3);
      expect(doors.entered.map(({ peer }) => peer.address)).to.deep.equal(["::1", "127.0.0.1", "::1"]);
    });

    it("one IPv4 address has one limit, over both kinds of listener", async () => {
      await doors.close();
      doors = new OpenDoors({ limits: { maxConnectionsPerAddress: 1 } });
      const [plain, both] = [
        await doors.open({ url: "mqtt://127.0.0.1:0" }),
        await doors.open({ url: "mqtt://[::]:0" }),
      ];
      at(plain.port);
      await first();
      const second = at(both.port);
      await until("it is out", () => second.destroyed);
      expect(doors.refused("max-per-address")).to.equal(1);
    });

    it("a unix socket has the mode that the umask leaves, no address, and goes with its listener", async () => {
      const path = join(folder, "mqtt.sock");
      const before = process.umask(0o007);
      const handle = await doors.open({ url: `unix://${path}` }).finally(() => process.umask(before));
      expect(statSync(path).mode & 0o777).to.equal(0o770);
      at(path);
      expect((await first()).peer.address).to.equal(undefined);
      for (const { stream } of doors.entered) stream.destroy();
      await handle.close();
      expect(existsSync(path)).to.equal(false);
    });
  });
});
