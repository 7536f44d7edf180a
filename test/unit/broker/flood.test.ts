import { connect } from "node:net";
import { expect } from "chai";
import { generate, type Packet } from "mqtt-packet";
import { systemClock } from "../../../src/base/clock.ts";
import { Meter } from "../../../src/base/meter.ts";
import type { Connection } from "../../../src/broker/connection.ts";
import type { BrokerContext } from "../../../src/broker/context.ts";
import { BrokerMetrics } from "../../../src/broker/metrics.ts";
import { CameAs } from "../../../src/broker/publishFrames.ts";
import { handlePublish } from "../../../src/broker/publishHandler.ts";
import type { Session } from "../../../src/broker/session.ts";
import { FrameScanner } from "../../../src/wire/mqtt/frameScanner.ts";
import { ProtocolError } from "../../../src/wire/mqtt/protocolError.ts";
import { connectPacket } from "../../helpers/brokerRig.ts";
import { openBroker } from "../../helpers/openBroker.ts";
import { until } from "../../helpers/wait.ts";

const readBytes = 64 * 1024;
const unread = "tidegate_mqtt_unread_bytes";
const cameIn = 'tidegate_mqtt_bytes_total{direction="in"}';

const publish = (version: 4 | 5, qos: 0 | 1): Buffer => {
  const packet = {
    cmd: "publish",
    topic: "t",
    payload: Buffer.alloc(100),
    qos,
    retain: false,
    dup: false,
    messageId: 1,
  };
  return generate(packet as Packet, { protocolVersion: version });
};

describe("clients that send all they can", () => {
  it("wait without a chunk each, though all have more than is read at once, and none is closed", async () => {
    let nowMs = 0;
    const { broker, metric } = openBroker({ clock: { ...systemClock, monotonicMs: () => (nowMs += 0.1) } }); // each look takes time
    const { port } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
    const count = 40;
    const batch = Buffer.concat(new Array(1000).fill(publish(4, 0)));
    let closed = 0;
    const sockets = Array.from({ length: count }, (_, n) => {
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => {});
      socket.on("close", () => (closed += 1));
      socket.write(generate(connectPacket(4, `c${n}`)));
      const more = (): void => {
        while (!socket.destroyed && socket.write(batch));
      };
      socket.on("drain", more);
      more();
      return socket;
    });
    await until("each was read some times", () => metric(cameIn) > 3 * count * readBytes);
    await until("few of them hold a chunk", () => metric(unread) <= 20 * readBytes);
    expect(closed).to.equal(0);
    for (const socket of sockets) socket.destroy();
    await until("nothing is held for those who are gone", () => metric(unread) === 0);
    await broker.close();
  });

  it("leave no chunk behind when they break their Receive Maximum", () => {
    const came = new CameAs();
    const scanner = new FrameScanner(1000);
    scanner.push(publish(5, 1));
    scanner.next();
    const entry = { topic: "t", durable: true, plain: true };
    const context = {
      ...{ metrics: new BrokerMetrics(new Meter()), cache: { find: () => entry }, deliverer: { came } },
      limits: { receiveMaximum: 3 },
    } as unknown as BrokerContext;
    const connection = { scanner, version: 5, unacknowledged: 3 } as unknown as Connection;
    const session = { source: "client:x", held: new Map() } as unknown as Session;
    expect(() => handlePublish(context, connection, session)).to.throw(ProtocolError, "Receive Maximum");
    expect(came.buffer).to.have.length(0);
    expect(came.message).to.equal(undefined);
  });
});
