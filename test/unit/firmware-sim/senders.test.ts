import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect } from "chai";
import { generate, type ParsedPacket, parse } from "coap-packet";
import mqttPacket, { type Packet } from "mqtt-packet";
import { Cloud } from "../../../firmware-sim/cloud.ts";
import { CoapPoster } from "../../../firmware-sim/coapPoster.ts";
import { decodeReading } from "../../../firmware-sim/codec/boiler.ts";
import { firstFalling } from "../../../firmware-sim/demo/compare.ts";
import { MqttFleet } from "../../../firmware-sim/mqttFleet.ts";
import { ReadingQueue } from "../../../firmware-sim/readingQueue.ts";
import { eventually } from "./fakeClock.ts";

describe("firmware-sim: reading queue", () => {
  it("hands out in order, accepts each number once, and holds back when full", () => {
    const queue = new ReadingQueue({ waitingMax: 3, acceptedMax: 2 });
    for (let made = 0; made < 5; made += 1) queue.produce();
    expect(queue.stats()).to.deep.equal({ produced: 3, held: 2, waiting: 3, accepted: 0 });
    expect([queue.at(0), queue.at(2), queue.at(3)]).to.deep.equal([1, 3, undefined]);
    expect([queue.accept(2), queue.accept(2), queue.accept(9)]).to.deep.equal([true, false, false]);
    expect([queue.at(0), queue.at(1)]).to.deep.equal([1, 3]);
    queue.accept(1);
    queue.accept(3);
    expect(queue.accepted).to.deep.equal([2, 1]);
    queue.produce();
    expect(queue.stats()).to.deep.equal({ produced: 4, held: 2, waiting: 1, accepted: 3 });
  });
});

describe("firmware-sim: CoAP poster", () => {
  let socket: Socket;
  let poster: CoapPoster | undefined;
  afterEach(async () => {
    await poster?.stop();
    socket.close();
  });

  /** A CoAP server that answers as `reply` says: a code, or undefined for silence. */
  async function server(reply: (n: number, request: ParsedPacket) => string | undefined): Promise<string> {
    socket = createSocket("udp4", (datagram, from) => {
      const request = parse(datagram);
      const code = reply((JSON.parse(request.payload.toString()) as { n: number }).n, request);
      if (code === undefined) return;
      const answer = generate({ code, ack: true, messageId: request.messageId, token: request.token });
      socket.send(answer, from.port, from.address);
    });
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    return `coap://127.0.0.1:${socket.address().port}/greenhouse`;
  }

  it("posts JSON with rising numbers", async () => {
    const requests: ParsedPacket[] = [];
    const url = await server((_, request) => {
      requests.push(request);
      return "2.04";
    });
    poster = new CoapPoster({ url, periodMs: 5 });
    poster.start();
    await eventually("10 accepted", () => (poster?.accepted.length ?? 0) >= 10);
    expect(poster.accepted.slice(0, 10)).to.deep.equal([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const [first] = requests;
    expect(first?.code).to.equal("0.02");
    expect(first?.confirmable).to.equal(true);
    expect(first?.options.find(({ name }) => name === "Uri-Path")?.value.toString()).to.equal("greenhouse");
    expect(first?.options.find(({ name }) => name === "Content-Format")?.value[0]).to.equal(50);
    expect(JSON.parse(first?.payload.toString() ?? "")).to.deep.equal({ celsius: CoapPoster.celsiusOf(1), n: 1 });
  });

  it("posts a reading again, and no later one, until its 2.xx comes: after silence and after 5.03", async () => {
    const tries: number[] = [];
    const url = await server((n) => {
      tries.push(n);
      const count = tries.filter((each) => each === n).length;
      if (n === 2 && count <= 2) return undefined;
      if (n === 3 && (count <= 2 || poster?.stats().refused["5.03"] === undefined)) return "5.03";
      return "2.04";
    });
    poster = new CoapPoster({ url, periodMs: 5, answerMs: 60, retryMs: 5 });
    poster.start();
    await eventually("5 accepted", () => (poster?.accepted.length ?? 0) >= 5);
    expect(poster.accepted.slice(0, 5)).to.deep.equal([1, 2, 3, 4, 5]);
    expect(firstFalling(tries)).to.equal(undefined);
    // At least: an answer that a busy machine hands over too late is none.
    for (const n of [2, 3]) expect(tries.filter((each) => each === n).length, `tries of ${n}`).to.be.at.least(3);
    expect(poster.stats().unanswered).to.be.at.least(2);
    expect(Object.keys(poster.stats().refused)).to.deep.equal(["5.03"]);
  });

  it("stops at once although nobody answers, and makes nothing new after stopProducing", async () => {
    const url = await server(() => undefined);
    poster = new CoapPoster({ url, periodMs: 5, answerMs: 60_000 });
    poster.start();
    await eventually("3 made", () => (poster?.stats().produced ?? 0) >= 3);
    poster.stopProducing();
    const { produced } = poster.stats();
    await poster.stop();
    expect(poster.stats()).to.include({ produced, accepted: 0, waiting: produced });
  });
});

describe("firmware-sim: MQTT 5 sensor", () => {
  it("takes a reading as accepted only when its PUBACK says success, and sends a refused or unanswered one again", async () => {
    const versions: unknown[] = [];
    const tries: number[] = [];
    let fleet: MqttFleet;
    const refused = (): number => fleet.stats()[0]?.refused ?? 0;
    const server = createServer((connection) => {
      const parser = mqttPacket.parser({ protocolVersion: 5 });
      connection.on("error", () => {});
      connection.on("data", (chunk) => parser.parse(chunk));
      const answer = (packet: Packet): void =>
        void connection.write(mqttPacket.generate(packet, { protocolVersion: 5 }));
      parser.on("packet", (packet: Packet) => {
        if (packet.cmd === "connect") {
          versions.push(packet.protocolVersion);
          answer({ cmd: "connack", reasonCode: 0, sessionPresent: false });
        }
        if (packet.cmd !== "publish") return;
        const { n } = JSON.parse(packet.payload.toString()) as { n: number };
        tries.push(n);
        const count = tries.filter((each) => each === n).length;
        if (n === 3 && count === 1) return; // never answered on this connection
        // Until it has heard it: an answer that comes too late on a busy machine is none.
        const reasonCode = n === 2 && refused() === 0 ? 0x97 : 0;
        answer({ cmd: "puback", messageId: packet.messageId ?? 0, reasonCode });
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const url = `mqtt://127.0.0.1:${port}`;
    fleet = new MqttFleet({ url, sensors: 1, binary: 0, periodMs: 20, window: 1, pubackMs: 100, versions: [5] });
    try {
      await fleet.start();
      const sensor = fleet.sensors[0];
      await eventually("5 accepted", () => (sensor?.accepted.length ?? 0) >= 5);
      expect(sensor?.accepted.slice(0, 5)).to.deep.equal([1, 2, 3, 4, 5]);
      expect(firstFalling(tries)).to.equal(undefined);
      for (const n of [2, 3]) expect(tries.filter((each) => each === n).length, `tries of ${n}`).to.be.at.least(2);
      expect(sensor?.stats()).to.include({ refused: 1, version: 5 });
      expect(new Set(versions)).to.deep.equal(new Set([5]));
      expect(versions.length, "a silent gateway is left and dialled again").to.be.at.least(2);
    } finally {
      await fleet.stop();
      server.close();
    }
  });
});

describe("firmware-sim: MQTT fleet and cloud", () => {
  let cloud: Cloud;
  let fleet: MqttFleet;
  beforeEach(async () => {
    cloud = new Cloud();
    await cloud.up();
    const url = `mqtt://127.0.0.1:${cloud.port}`;
    fleet = new MqttFleet({ url, sensors: 2, binary: 1, periodMs: 10, versions: [4] }); // aedes speaks 3.1.1 only
    await fleet.start();
  });
  afterEach(async () => {
    await fleet.stop();
    await cloud.close();
  });
  const acceptedByAll = (count: number) => (): boolean => fleet.stats().every((sensor) => sensor.accepted >= count);

  it("publishes JSON and binary", async () => {
    await eventually("5 PUBACKs each", acceptedByAll(5));
    const topics = fleet.sensors.map(({ topic }) => topic);
    expect(topics).to.deep.equal(["sensors/s1/temp", "sensors/s2/temp", "legacy/meter3/bin"]);
    const json = cloud.messages.find(({ topic }) => topic === "sensors/s2/temp");
    expect(JSON.parse(json?.payload.toString() ?? "")).to.deep.equal({ n: 1, celsius: 15.1 });
    const binary = cloud.messages.find(({ topic }) => topic === "legacy/meter3/bin");
    expect(decodeReading(binary?.payload ?? Buffer.alloc(0))).to.include({ kind: 1, seq: 1, temperature: 1510 });
  });

  it("loses nothing that was acknowledged and keeps the order, while the link goes down and comes back", async () => {
    const { port } = cloud;
    for (let round = 1; round <= 3; round += 1) {
      await eventually(`round ${round}`, acceptedByAll(round * 15));
      await cloud.down();
      expect(cloud.isUp).to.equal(false);
      await eventually("the loss noticed", () => fleet.stats().every((sensor) => !sensor.connected));
      await cloud.up();
      expect(cloud.port).to.equal(port);
      // A sensor whose readings were all acknowledged has nothing that tells of a link that never came back.
      await eventually("all connected again", () => fleet.stats().every((sensor) => sensor.connected));
    }
    fleet.stopProducing();
    await eventually("everything acknowledged", () => fleet.stats().every((sensor) => sensor.waiting === 0));
    for (const sensor of fleet.sensors) {
      const arrived = cloud.messages
        .filter(({ topic }) => topic === sensor.topic)
        .map(({ payload }) =>
          sensor.binary ? payload.readUInt16LE(1) : (JSON.parse(payload.toString()) as { n: number }).n,
        );
      const { produced, connects } = sensor.stats();
      expect(connects, sensor.id).to.equal(4);
      expect(sensor.accepted, sensor.id).to.deep.equal(Array.from({ length: produced }, (_, at) => at + 1));
      expect(new Set(arrived).size, sensor.id).to.equal(produced);
      expect(firstFalling(arrived), sensor.id).to.equal(undefined);
    }
  });

  it("delivers commands down, and knows who is connected", async () => {
    const { connectAsync } = await import("mqtt");
    const gateway = await connectAsync(`mqtt://127.0.0.1:${cloud.port}`, { clientId: "gw", reconnectPeriod: 0 });
    try {
      await gateway.subscribeAsync("gw/demo/cmd/#", { qos: 1 });
      const got = new Promise<[string, string]>((resolve) =>
        gateway.once("message", (topic, payload) => resolve([topic, payload.toString()])),
      );
      await eventually("connected", () => cloud.isConnected("gw"));
      await cloud.publish("gw/demo/cmd/boiler", '{"setpoint":42.5}');
      expect(await got).to.deep.equal(["gw/demo/cmd/boiler", '{"setpoint":42.5}']);
    } finally {
      await gateway.endAsync(true);
    }
    await eventually("gone", () => !cloud.isConnected("gw"));
  });

  it("counts messages beyond its limit without keeping them", async () => {
    const small = new Cloud({ messagesMax: 2 });
    await small.up();
    const { connectAsync } = await import("mqtt");
    const client = await connectAsync(`mqtt://127.0.0.1:${small.port}`, { reconnectPeriod: 0 });
    try {
      for (let n = 0; n < 5; n += 1) await client.publishAsync("t", String(n), { qos: 1 });
      expect(small.messages.map(({ payload }) => payload.toString())).to.deep.equal(["0", "1"]);
      expect(small.received).to.equal(5);
    } finally {
      await client.endAsync(true);
      await small.close();
    }
  });
});
