import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { expect } from "chai";
import { generate } from "mqtt-packet";
import { systemClock } from "../../../src/base/clock.ts";
import type { ListenerHandle, ListenerTls } from "../../../src/broker/options.ts";
import { connectPacket } from "../../helpers/brokerRig.ts";
import { makeCertificate } from "../../helpers/certificate.ts";
import { openBroker } from "../../helpers/openBroker.ts";
import { frame, opcode, RawWebSocket } from "../../helpers/rawWebSocket.ts";
import { until } from "../../helpers/wait.ts";

const publish = (n: number, qos: 0 | 1 = 0): Buffer =>
  generate({ cmd: "publish", topic: "t", payload: String(n), qos, messageId: n + 1, retain: false, dup: false });
const will = { topic: "will", payload: Buffer.from("x"), qos: 0, retain: false } as const;

interface Caller {
  write(bytes: Buffer): void;
  /** Writes, and says that nothing more comes. */
  end(bytes: Buffer): void;
  answered(): boolean;
}

function onSocket(socket: Socket): Caller {
  let answers = 0;
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => (answers += chunk.length));
  return {
    write: (bytes) => socket.write(bytes),
    end: (bytes) => socket.end(bytes),
    answered: () => answers > 0,
  };
}

/** @param closing what is said behind the last bytes @param size of a frame */
async function onWebSocket(port: number, closing: Buffer = Buffer.alloc(0), size = 1e6): Promise<Caller> {
  const client = await RawWebSocket.open(port);
  return {
    write: (bytes) => client.socket.write(frame(opcode.binary, bytes)),
    end: (bytes) => {
      for (let at = 0; at < bytes.length; at += size)
        client.socket.write(frame(opcode.binary, bytes.subarray(at, at + size)));
      if (closing.length > 0) client.socket.write(closing);
      else client.socket.end();
    },
    answered: () => client.bytes.length > 0,
  };
}

describe("who says all there is to say and hangs up", () => {
  let folder = "";
  let tls: ListenerTls | undefined;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    const { cert, key } = await makeCertificate(folder);
    tls = { cert: readFileSync(cert), key: readFileSync(key), ca: undefined, clientCert: "none" };
  });
  after(() => rmSync(folder, { recursive: true }));

  const kinds: ReadonlyArray<{
    name: string;
    url: () => string;
    proxyProtocol?: boolean;
    call: (handle: ListenerHandle) => Caller | Promise<Caller>;
  }> = [
    { name: "TCP", url: () => "mqtt://127.0.0.1:0", call: ({ port }) => onSocket(connect(port, "127.0.0.1")) },
    {
      name: "a unix socket",
      url: () => `unix://${join(folder, "s")}`,
      call: () => onSocket(connect(join(folder, "s"))),
    },
    {
      name: "TLS",
      url: () => "mqtts://127.0.0.1:0",
      call: ({ port }) => onSocket(connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false })),
    },
    {
      name: "TCP behind a proxy",
      url: () => "mqtt://127.0.0.1:0",
      proxyProtocol: true,
      call: ({ port }) => {
        const socket = connect(port, "127.0.0.1");
        socket.write("PROXY TCP4 10.0.0.7 10.0.0.1 40000 1883\r\n");
        return onSocket(socket);
      },
    },
    { name: "WebSocket", url: () => "ws://127.0.0.1:0/mqtt", call: ({ port }) => onWebSocket(port) },
    {
      name: "WebSocket in many messages, closed as a browser does",
      url: () => "ws://127.0.0.1:0/mqtt",
      call: ({ port }) => onWebSocket(port, frame(opcode.close, Buffer.from([3, 232])), 1000), // 1000: normal closure
    },
  ];
  /** More than are handled in one turn: in one chunk that does not count as much, and in several. */
  const counts = [
    { count: 1000, qos: 0 },
    { count: 10_000, qos: 0 },
    { count: 5000, qos: 1 }, // which are answered when nobody takes answers any more
  ] as const;
  for (const { name, url, proxyProtocol, call, count, qos } of counts.flatMap((counted) =>
    kinds.map((kind) => ({ ...kind, ...counted })),
  )) {
    it(`is heard to the end, however long it waits for its turn: ${count} packets of QoS ${qos} over ${name}`, async () => {
      let nowMs = 0;
      const { broker, metric } = openBroker({ clock: { ...systemClock, monotonicMs: () => (nowMs += 1) } }); // each look takes time
      try {
        const heard: string[] = [];
        broker.subscribe("#", ({ topic, payload }) => {
          if (!topic.startsWith("$")) heard.push(topic === "will" ? "will" : String(payload));
          return undefined;
        });
        const handle = await broker.listen({ url: url(), tls, proxyProtocol });
        const caller = await call(handle);
        caller.write(generate({ ...connectPacket(4, "c"), will }));
        await until("CONNACK", () => caller.answered());
        caller.end(
          Buffer.concat([...Array.from({ length: count }, (_, n) => publish(n, qos)), generate({ cmd: "disconnect" })]),
        );
        await until("it has gone", () => metric("tidegate_mqtt_connections") === 0);
        expect(heard).to.deep.equal(Array.from({ length: count }, (_, n) => String(n)));
      } finally {
        await broker.close();
      }
    });
  }
});
