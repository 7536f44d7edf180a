import { symlink, unlink } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import mqtt, { type MqttClient } from "mqtt";
import { openPtyLink, ptyProblem } from "../../firmware-sim/ptyLink.ts";
import { type CloudConnection, FakeCloud } from "../helpers/fakeCloud.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

/** A command of the cloud is for a device that is away: what the cloud was told is taken comes to it when it is back, unless it is stale. */
describe("commands from the cloud for devices that are away, with the real binary", function () {
  this.timeout(180_000);
  let gateway: GatewayProcess;
  let cloud: FakeCloud;
  let port = 0;
  let http = 0;
  const clients: MqttClient[] = [];

  beforeEach(async () => {
    [port = 0, http = 0] = await freePorts(2);
    cloud = await FakeCloud.open(5, { connect: (connection) => connection.connack({ sessionPresent: true }) });
    gateway = await GatewayProcess.create("");
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.endAsync(true).catch(() => {});
    await gateway.remove();
    await cloud.close();
  });

  async function start(sources = ""): Promise<void> {
    await gateway.configure(`
gateway: { id: g1, logLevel: warn } # "ready" is written all the same: start() waits for it
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${http}" }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: ${cloud.url}
    backoff: { min: 20ms, max: 100ms }
    receive: [ { topic: "gw/{gateway}/cmd/#", to: "cmd/{rest}", expiry: 60s } ]
${sources}`);
    const before = cloud.connections.length;
    await gateway.start();
    await until("subscribed", () => cloud.connections.length > before && cloud.last?.seen("subscribe").length === 1);
  }

  let lastId = 0;
  /** Resolves when the gateway has said that it has it. */
  async function command(topic: string, payload: string, seconds?: number): Promise<void> {
    const connection = cloud.last as CloudConnection;
    lastId += 1;
    const messageId = lastId;
    const properties = seconds === undefined ? {} : { messageExpiryInterval: seconds };
    connection.publish(`gw/g1/${topic}`, payload, { qos: 1, messageId, properties });
    const answer = await until("PUBACK", () =>
      connection.seen("puback").find((packet) => packet.messageId === messageId),
    );
    expect(answer.reasonCode ?? 0).to.be.below(0x80);
  }

  async function device(
    got: Array<{ payload: string; expiry: number | undefined }>,
  ): Promise<{ present: boolean; client: MqttClient }> {
    const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
      ...{ protocolVersion: 5, clientId: "door", clean: false, reconnectPeriod: 0 },
      properties: { sessionExpiryInterval: 3600 },
    });
    clients.push(client);
    client.on("message", (_, payload, packet) =>
      got.push({ payload: String(payload), expiry: packet.properties?.messageExpiryInterval }),
    );
    const present = await new Promise<boolean>((resolve, reject) => {
      client.once("connect", (connack) => resolve(connack.sessionPresent));
      client.once("error", reject);
    });
    return { present, client };
  }

  it("an MQTT device with a session: kept over kill -9, with what is left of its expiry; a stale one never comes", async () => {
    await start();
    const first = await device([]);
    await first.client.subscribeAsync("cmd/door/#", { qos: 1 });
    await first.client.endAsync();
    await command("cmd/door/lock", "lock");
    await command("cmd/door/open", "open", 2);
    await command("cmd/door/light", "light", 3600); // the rule's expiry is the shorter one
    const staleMs = Date.now() + 2000;
    await gateway.end("SIGKILL");
    await start();
    await until("it is stale", () => Date.now() > staleMs + 500);
    const got: Array<{ payload: string; expiry: number | undefined }> = [];
    expect((await device(got)).present).to.equal(true);
    await until("both", () => got.length >= 2);
    await command("cmd/door/last", "last");
    await until("the last one", () => got.some(({ payload }) => payload === "last"));
    expect(got.map(({ payload }) => payload)).to.deep.equal(["lock", "light", "last"]);
    for (const { expiry } of got.slice(0, 2)) expect(expiry).to.be.within(1, 58);
    expect(got[2]?.expiry).to.be.within(59, 60);
  });

  it("a serial device that is unplugged: the same", async function () {
    const noPty = await ptyProblem();
    if (noPty !== undefined) {
      process.stdout.write(`      serial: skipped on this platform: ${noPty}\n`);
      return this.skip();
    }
    const path = join(gateway.dir, "tty");
    const sources = `
sources:
  - name: door
    type: serial
    path: ${path}
    baudRate: 115200
    framing: { type: lines }
    decode: json
    topic: door/state
    commands: { topic: "cmd/door", encode: json, expiry: 30s }`;
    await start(sources);
    await command("cmd/door", '{"do":"lock"}');
    await command("cmd/door", '{"do":"open"}', 2);
    await command("cmd/door", '{"do":"light"}');
    const staleMs = Date.now() + 2000;
    await gateway.end("SIGKILL");
    await start(sources);
    await until("it is stale", () => Date.now() > staleMs + 500);
    let received = "";
    const link = await openPtyLink({ onData: (chunk) => (received += chunk.toString("latin1")), onLost: () => {} });
    try {
      await symlink(link.path, path);
      await until("they are written", () => received.split("\n").length >= 3);
      await command("cmd/door", '{"do":"last"}');
      await until("the last one", () => received.includes("last"));
      expect(received.trim().split("\n")).to.deep.equal(['{"do":"lock"}', '{"do":"light"}', '{"do":"last"}']);
      const [source] = (await (await fetch(`http://127.0.0.1:${http}/api/v1/sources`)).json()) as Array<{
        dropped: Record<string, number>;
      }>;
      expect(source?.dropped).to.deep.equal({ commandExpired: 1 });
      await unlink(path);
    } finally {
      await link.close();
    }
    // A clean stop keeps them as well.
    await until("it is noticed", async () => {
      const [source] = (await (await fetch(`http://127.0.0.1:${http}/api/v1/sources`)).json()) as Array<{
        link: string;
      }>;
      return source?.link === "down";
    });
    await command("cmd/door", '{"do":"again"}');
    expect(await gateway.end("SIGTERM")).to.equal(0);
    await start(sources);
    received = "";
    const back = await openPtyLink({ onData: (chunk) => (received += chunk.toString("latin1")), onLost: () => {} });
    try {
      await symlink(back.path, path);
      await until("it is written", () => received.includes("\n"));
      expect(received).to.equal('{"do":"again"}\n');
    } finally {
      await back.close();
    }
  });
});
