import { createSocket } from "node:dgram";
import { expect } from "chai";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { needPeers, type PeerProcess, runPeer, startPeer } from "../helpers/peers.ts";
import { freePorts, freeUdpPort } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

describe("peer: libcoap", () => {
  let gateway: GatewayProcess;
  let coapPort = 0;
  let sensorPort = 0;
  let mqttPort = 0;
  let httpPort = 0;
  let sensor: PeerProcess | undefined;
  let consumer: PeerProcess | undefined;

  before(async function () {
    needPeers(this, "coap-client-notls", "coap-server-notls", "mosquitto_sub");
    [mqttPort = 0, httpPort = 0] = await freePorts(2);
    coapPort = await freeUdpPort();
    sensorPort = await freeUdpPort();
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${mqttPort}" } ] }
http: { listen: "http://127.0.0.1:${httpPort}" }
sources:
  - { name: field, type: coap-server, listen: "coap://127.0.0.1:${coapPort}", topic: "field/{path}", decode: auto }
  - { name: time, type: coap, url: "coap://127.0.0.1:${sensorPort}/time", observe: true, decode: text, topic: yard/time }
uplinks:
  - { name: cloud, url: "mqtt://127.0.0.1:1", forward: [ { topic: "#", to: "{topic}" } ] }
`);
    await gateway.start();
    consumer = startPeer("mosquitto_sub", [
      "-h",
      "127.0.0.1",
      "-p",
      String(mqttPort),
      "-d",
      "-t",
      "field/#",
      "-t",
      "yard/#",
      "-F",
      "%t %p",
    ]);
    await until("the consumer is subscribed", () => consumer?.output().includes("Subscribed"));
  });
  after(async () => {
    await consumer?.stop();
    await sensor?.stop("SIGKILL");
    await gateway?.remove();
  });

  const lines = (start: string): string[] =>
    (consumer?.output() ?? "").split("\n").filter((line) => line.startsWith(start));
  const client = (...args: string[]): Promise<{ code: number | null; output: string }> =>
    runPeer("coap-client-notls", ["-B", "10", "-v", "7", ...args]);

  it("coap-client POSTs and PUTs JSON, CBOR and text: 2.04, and the reading is published", async () => {
    const url = `coap://127.0.0.1:${coapPort}`;
    for (const method of ["post", "put"]) {
      const answer = await client("-m", method, "-t", "50", "-e", '{"celsius":21.5}', `${url}/shed/${method}`);
      expect(answer.output, answer.output).to.match(/2\.04/);
    }
    await until("both arrived", () => lines("field/shed/").length === 2);
    expect(lines("field/shed/")).to.deep.equal(['field/shed/post {"celsius":21.5}', 'field/shed/put {"celsius":21.5}']);
    // A1 61 61 18 2A is { "a": 42 } (RFC 8949).
    const cbor = await client("-m", "post", "-t", "60", "-e", "%A1%61%61%18%2A", `${url}/cbor`);
    expect(cbor.output).to.match(/2\.04/);
    await until("the CBOR arrived as JSON", () => lines("field/cbor").includes('field/cbor {"a":42}'));
  });

  it("coap-client -N (non-confirmable) is answered too", async () => {
    const answer = await client("-N", "-m", "post", "-t", "50", "-e", "7", `coap://127.0.0.1:${coapPort}/non`);
    expect(answer.output).to.match(/2\.04/);
    await until("it arrived", () => lines("field/non").includes("field/non 7"));
  });

  it("takes a block-wise upload (a new token per block, as libcoap does)", async () => {
    const big = JSON.stringify({ text: "x".repeat(3000) });
    const answer = await client("-b", "256", "-m", "post", "-t", "50", "-e", big, `coap://127.0.0.1:${coapPort}/big`);
    expect(answer.output).to.match(/2\.04/);
    await until("it arrived whole", () => lines("field/big").includes(`field/big ${big}`));
  });

  it("refuses what it cannot decode with 4.00 or 4.15, and goes on", async () => {
    const url = `coap://127.0.0.1:${coapPort}`;
    expect((await client("-m", "post", "-t", "50", "-e", "{not json", `${url}/bad`)).output).to.match(/4\.00/);
    expect((await client("-m", "post", "-t", "41", "-e", "<x/>", `${url}/bad`)).output).to.match(/4\.(00|15)/);
    expect((await client("-m", "post", "-t", "50", "-e", "1", `${url}/good`)).output).to.match(/2\.04/);
  });

  it("garbage datagrams are counted and dropped", async () => {
    const socket = createSocket("udp4");
    const send = (bytes: number[]): Promise<void> =>
      new Promise((resolve, reject) =>
        socket.send(Uint8Array.from(bytes), coapPort, "127.0.0.1", (error) => (error ? reject(error) : resolve())),
      );
    for (const bytes of [
      [],
      [0],
      [0x40],
      [0x4f, 2, 0, 1],
      [0x40, 2, 0, 1, 0xff],
      [0x40, 2, 0, 1, 0xdd],
      [0xff, 0xff, 0xff, 0xff],
    ])
      await send(bytes);
    socket.close();
    expect((await client("-m", "post", "-t", "50", "-e", "2", `coap://127.0.0.1:${coapPort}/still`)).output).to.match(
      /2\.04/,
    );
    const metrics = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
    expect(metrics).to.match(/tidegate_source_dropped_total\{[^}]*source="field"[^}]*\} [1-9]/);
  });

  it("observes coap-server's clock, also after that server was restarted", async function () {
    this.timeout(240_000);
    const start = (): PeerProcess => startPeer("coap-server-notls", ["-A", "127.0.0.1", "-p", String(sensorPort)]);
    sensor = start();
    await until("three notifications", () => lines("yard/time").length >= 3, 60_000);
    await sensor.stop("SIGKILL");
    const before = lines("yard/time").length;
    sensor = start();
    await until("notifications again", () => lines("yard/time").length >= before + 3, 100_000);
  });
});
