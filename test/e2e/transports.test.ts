import { rm } from "node:fs/promises";
import { connect as connectSocket } from "node:net";
import { join } from "node:path";
import { expect } from "chai";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { generate } from "mqtt-packet";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { TestCa } from "../helpers/testCa.ts";
import { until } from "../helpers/wait.ts";

interface Status {
  readonly listeners: readonly string[];
  readonly clients: ReadonlyArray<{ clientId: string; address?: string }>;
}

describe("e2e: transports", () => {
  let ca: TestCa | undefined;
  let gateway: GatewayProcess | undefined;
  const clients: MqttClient[] = [];

  before(() => {
    ca = TestCa.make();
  });
  after(() => ca?.remove());
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.endAsync(true);
    await gateway?.remove();
    gateway = undefined;
  });

  async function connected(url: string, options: IClientOptions = {}): Promise<MqttClient> {
    const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, ...options });
    client.on("error", () => {});
    clients.push(client);
    return client;
  }

  it("one message reaches subscribers over ws, wss, mqtts with a client certificate, a unix socket and HTTP's /mqtt", async () => {
    if (ca === undefined) return;
    const [plain = 0, ws = 0, wss = 0, tls = 0, http = 0] = await freePorts(5);
    const server = ca.issue("/CN=server");
    const named = ca.issue("/CN=named", "DNS:gw.example");
    const files = `cert: ${server.certFile}, key: ${server.keyFile}`;
    gateway = await GatewayProcess.create(`
mqtt:
  listeners:
    - url: mqtt://127.0.0.1:${plain}
    - url: ws://127.0.0.1:${ws}/mqtt
    - url: wss://127.0.0.1:${wss}
      tls: { ${files}, sni: { "*.example": { cert: ${named.certFile}, key: ${named.keyFile} } } }
    - url: mqtts://127.0.0.1:${tls}
      tls: { ${files}, ca: ${ca.caFile}, clientCert: required }
    - url: unix://mqtt.sock
http: { listen: "http://127.0.0.1:${http}" }
`);
    await gateway.start();
    const got: string[] = [];
    const { cert, key } = ca.issue("/CN=pump-7");
    const reach: Array<[clientId: string, url: string, options: IClientOptions]> = [
      ["over ws", `ws://127.0.0.1:${ws}/mqtt`, {}],
      ["over ws 5", `ws://127.0.0.1:${ws}/mqtt`, { protocolVersion: 5 }],
      ["over wss", `wss://127.0.0.1:${wss}/mqtt`, { ca: ca.ca }],
      ["over wss by name", `wss://127.0.0.1:${wss}/mqtt`, { ca: ca.ca, servername: "gw.example" }],
      ["over mqtts", `mqtts://127.0.0.1:${tls}`, { ca: ca.ca, cert, key }],
      ["over http", `ws://127.0.0.1:${http}/mqtt`, {}],
    ];
    for (const [clientId, url, options] of reach) {
      const client = await connected(url, { ...options, clientId });
      client.on("message", (_topic, payload) => got.push(`${clientId}: ${payload}`));
      await client.subscribeAsync("t", { qos: 1 });
    }
    const path = join(gateway.dir, "mqtt.sock");
    const socket = connectSocket(path);
    socket.write(
      Buffer.concat([
        generate({
          cmd: "connect",
          protocolId: "MQTT",
          protocolVersion: 4,
          clientId: "unix",
          clean: true,
          keepalive: 0,
        }),
        generate({ cmd: "publish", topic: "t", payload: "hello", qos: 0, retain: false, dup: false }),
      ]),
    );
    await until("everybody has it", () => got.length === reach.length);
    expect(got.sort()).to.deep.equal(reach.map(([clientId]) => `${clientId}: hello`).sort());
    const status = (await (await fetch(`http://127.0.0.1:${http}/api/v1/status`)).json()) as Status;
    expect(status.listeners).to.include.members([`ws://127.0.0.1:${ws}/mqtt`, `wss://127.0.0.1:${wss}/mqtt`]);
    const without = await connected(`mqtts://127.0.0.1:${tls}`, { ca: ca.ca }).catch((error: Error) => error);
    expect(without).to.be.instanceOf(Error);
    socket.destroy();
    const beganMs = performance.now();
    expect(await gateway.end("SIGTERM")).to.equal(0);
    expect(performance.now() - beganMs).to.be.below(5000);
  });

  it("behind a balancer the client's address is shown, and who sends no header is out", async () => {
    const [port = 0, http = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}", proxyProtocol: true } ] }
access: { anonymous: true }
http: { listen: "http://127.0.0.1:${http}" }
`);
    await gateway.start();
    const hello = generate({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clientId: "c",
      clean: true,
      keepalive: 0,
    });
    const socket = connectSocket(port, "127.0.0.1");
    socket.write(Buffer.concat([Buffer.from("PROXY TCP6 2001:db8::7 2001:db8::1 4711 1883\r\n"), hello]));
    await until("it is shown", async () => {
      const { clients: shown } = (await (await fetch(`http://127.0.0.1:${http}/api/v1/status`)).json()) as Status;
      return shown.some(({ clientId, address }) => clientId === "c" && address === "2001:db8::7");
    });
    const without = connectSocket(port, "127.0.0.1");
    without.on("error", () => {});
    without.write(hello);
    await until("it is out", () => without.destroyed);
    expect(await (await fetch(`http://127.0.0.1:${http}/metrics`)).text()).to.contain(
      'tidegate_mqtt_refused_total{reason="proxy"} 1',
    );
    socket.destroy();
  });

  it("a certificate that ends soon is a warning at the start", async () => {
    if (ca === undefined) return;
    const [port = 0] = await freePorts(1);
    const { certFile, keyFile } = ca.issue("/CN=server", "IP:127.0.0.1", 3);
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtts://127.0.0.1:${port}", tls: { cert: ${certFile}, key: ${keyFile} } } ] }
http: { listen: false }
`);
    await gateway.start();
    expect(gateway.lines.some(({ msg }) => /^the certificate expires in [23] days/.test(msg ?? ""))).to.equal(true);
  });

  it("a key that is another certificate's: says so, exit 1", async () => {
    if (ca === undefined) return;
    const [port = 0] = await freePorts(1);
    const { certFile } = ca.issue("/CN=server");
    const { keyFile } = ca.issue("/CN=other");
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtts://127.0.0.1:${port}", tls: { cert: ${certFile}, key: ${keyFile} } } ] }
http: { listen: false }
`);
    const { code, stderr } = await gateway.failingStart();
    expect(code).to.equal(1);
    expect(stderr).to.match(/certificate or key is not usable/);
    await rm(join(gateway.dir, "tidegate-data"), { recursive: true, force: true });
  });
});
