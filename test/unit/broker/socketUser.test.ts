import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer, connect as tlsConnect } from "node:tls";
import { expect } from "chai";
import { WebSocketServer } from "ws";
import { readOn, type SocketUser, stopReading, useSocket } from "../../../src/broker/socketUser.ts";
import { WebSocketDuplex } from "../../../src/broker/webSocketDuplex.ts";
import { makeCertificate } from "../../helpers/certificate.ts";
import { frame, opcode, RawWebSocket } from "../../helpers/rawWebSocket.ts";
import { until } from "../../helpers/wait.ts";

const readBytes = 64 * 1024;
/** More than the kernel takes for a socket that nobody reads. */
const total = 32 * 1024 * 1024;
const sent = Buffer.alloc(total);
for (let at = 0; at < total; at += 4) sent.writeUInt32LE(at, at);

type Portal = ReturnType<typeof createServer>;

async function certificate() {
  const folder = await mkdtemp(join(tmpdir(), "tidegate-"));
  try {
    const { cert, key } = await makeCertificate(folder);
    return { cert: await readFile(cert), key: await readFile(key) };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Both ends of a connection. */
async function ends(server: Portal, event: string, open: (port: number) => Socket) {
  const accepted = new Promise<Socket>((resolve) => server.once(event, resolve));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const far = open(typeof address === "object" && address !== null ? address.port : 0);
  const near = await accepted;
  server.close();
  return { near, far };
}

/** Keeps what comes. */
class Reader implements SocketUser {
  readonly got: Buffer[] = [];
  ends = 0;
  closes = 0;
  readonly #then: (its: Reader) => void;

  constructor(then: (its: Reader) => void) {
    this.#then = then;
  }

  received(chunk: Buffer): void {
    this.got.push(chunk);
    this.#then(this);
  }

  framed(): void {}

  ended(): void {
    this.ends += 1;
  }

  closed(): void {
    this.closes += 1;
  }
}

describe("a socket that is not to be read", () => {
  const plain = () => ends(createServer({ noDelay: true }), "connection", (port) => connect(port, "127.0.0.1"));
  const secured = async () => {
    const { cert, key } = await certificate();
    return ends(createTlsServer({ cert, key }), "secureConnection", (port) =>
      tlsConnect({ port, host: "127.0.0.1", rejectUnauthorized: false }),
    );
  };
  for (const { name, open, lies } of [
    { name: "TCP", open: plain, lies: 0 },
    { name: "TLS", open: secured, lies: readBytes }, // what was deciphered with the first
  ]) {
    it(`is stopped before it reads once more, again and again, and nothing is lost: ${name}`, async () => {
      const { near, far } = await open();
      let most = 0;
      const its = new Reader(({ got }) => {
        if (got.length > 20) return;
        stopReading(near);
        setImmediate(() => {
          most = Math.max(most, near.readableLength);
          readOn(near);
        });
      });
      useSocket(near, its);
      far.end(sent);
      await until("all of it has come", () => its.ends === 1);
      expect(most).to.be.at.most(lies);
      expect(Buffer.concat(its.got).equals(sent)).to.equal(true);
      near.destroy();
      far.destroy();
      await until("it is closed", () => its.closes === 1);
      expect(its.ends).to.equal(1);
    });

    it(`that is only paused reads once more, and all comes in order: ${name}`, async () => {
      const { near, far } = await open();
      const its = new Reader(({ got }) => {
        if (got.length > 50 || got.length % 3 === 0) return;
        near.pause();
        if (got.length % 2 === 0) setImmediate(() => near.resume());
        else void until("it has read on", () => near.readableLength > 0).then(() => near.resume());
      });
      useSocket(near, its);
      far.end(sent);
      await until("all of it has come", () => its.ends === 1);
      expect(Buffer.concat(its.got).equals(sent)).to.equal(true);
      near.end();
      await until("it is closed", () => its.closes === 1);
    });

    it(`that its user destroys over what has come tells nothing more: ${name}`, async () => {
      const { near, far } = await open();
      const its = new Reader(() => near.destroy());
      useSocket(near, its);
      far.on("error", () => {});
      far.write(sent);
      await until("it is closed", () => its.closes === 1);
      expect([its.got.length, its.ends]).to.deep.equal([1, 0]);
      far.destroy();
    });
  }
});

it("a WebSocket that is not to be read takes no more messages than the chunk has that was read", async () => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await until("it listens", () => server.address() !== null);
  const streams: WebSocketDuplex[] = [];
  const its = new Reader(() => {});
  server.on("connection", (ws, { socket }) => {
    const stream = new WebSocketDuplex(ws, socket, () => {});
    useSocket(stream, its);
    stopReading(stream);
    streams.push(stream);
  });
  const { port } = server.address() as { port: number };
  const client = await RawWebSocket.open(port);
  const message = Buffer.alloc(20_000, "x");
  for (let n = 0; n < 50; n += 1) client.socket.write(frame(opcode.binary, message));
  const stream = await until("it is open", () => streams[0]);
  await until("all is on its way", () => client.socket.writableLength === 0);
  for (let n = 0; n < 100; n += 1) await new Promise<void>((resolve) => setImmediate(resolve));
  expect(stream.readableLength).to.be.at.most(readBytes);
  readOn(stream);
  const got = (): number => its.got.reduce((sum, { length }) => sum + length, 0);
  await until("all of it has come", () => got() === 50 * message.length);
  client.drop();
  await until("it has ended", () => its.ends === 1);
  stream.destroy();
  await until("it is closed", () => its.closes === 1);
  server.close();
});
