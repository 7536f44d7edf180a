import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { needPeers, type PeerProcess, runPeer, startPeer } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { PeerGateway } from "./peerGateway.ts";

describe("peer: mosquitto_sub and $SYS", () => {
  let gateway: PeerGateway | undefined;
  after(() => gateway?.remove());

  it("tells its version", async function () {
    needPeers(this, "mosquitto_sub", "openssl");
    gateway = await PeerGateway.start(["mqtt"]);
    const at = ["-h", "127.0.0.1", "-p", String(gateway.door("mqtt").port)];
    const sys = await runPeer("mosquitto_sub", [...at, "-t", "$SYS/broker/version", "-C", "1", "-W", "15"]);
    expect(sys.output).to.match(/tidegate/i);
  });
});

describe("peer: mosquitto as the cloud", () => {
  let dir = "";
  let gateway: GatewayProcess;
  let cloud: PeerProcess | undefined;
  let ports: number[] = [];

  before(async function () {
    needPeers(this, "mosquitto", "mosquitto_pub", "mosquitto_sub");
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
    ports = await freePorts(2);
  });
  afterEach(async () => {
    await gateway?.remove();
    await cloud?.stop("SIGKILL");
  });
  after(() => rm(dir, { recursive: true, force: true }));

  const local = (): string[] => ["-h", "127.0.0.1", "-p", String(ports[0])];
  const remote = (): string[] => ["-h", "127.0.0.1", "-p", String(ports[1])];

  async function startCloud(): Promise<void> {
    const file = join(dir, "mosquitto.conf");
    const lines = [
      `listener ${ports[1]} 127.0.0.1`,
      "allow_anonymous true",
      "persistence true",
      `persistence_location ${dir}/`,
    ];
    await writeFile(file, [...lines, "max_inflight_messages 50", "max_queued_messages 0", "user root", ""].join("\n"));
    cloud = startPeer("mosquitto", ["-c", file, "-v"]);
    await until("mosquitto listens", () => cloud?.output().includes("running"));
  }

  async function startGateway(version: string, more = ""): Promise<void> {
    gateway = await GatewayProcess.create(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${ports[0]}" } ] }
http: { listen: false }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${ports[1]}
    version: ${version}
    backoff: { min: 100ms, max: 500ms }
    forward: [ { topic: "plant/#", to: "gw/{gateway}/{topic}", qos: 1 } ]
    receive: [ { topic: "gw/{gateway}/cmd/#", to: "cmd/{rest}", qos: 1, expiry: 60s } ]
${more}`);
    await gateway.start();
  }

  for (const [version, envelope] of [
    ["5", "none"],
    ["4", "json"],
  ] as const) {
    it(`version ${version}: what was taken while the cloud was away is there when it is back, in order, and commands come down`, async () => {
      await startGateway(version, `    envelope: ${envelope}\n`);
      const lines = Array.from({ length: 500 }, (_, n) => `{"n":${n}}`);
      const pub = await runPeer(
        "mosquitto_pub",
        [...local(), "-q", "1", "-t", "plant/a", "-l"],
        `${lines.join("\n")}\n`,
      );
      expect(pub.code, pub.output).to.equal(0);
      await gateway.end("SIGKILL");
      await startCloud();
      // A consumer of the cloud that is subscribed before the gateway comes back.
      const format = version === "5" ? "%t %P %p" : "%t %p";
      const consumer = startPeer("mosquitto_sub", [
        ...remote(),
        "-d",
        "-V",
        version === "5" ? "mqttv5" : "mqttv311",
        "-q",
        "1",
        "-t",
        "gw/#",
        "-F",
        format,
      ]);
      await until("the consumer is subscribed", () => consumer.output().includes("Subscribed"));
      await gateway.start();
      const arrived = (): string[] =>
        consumer
          .output()
          .split("\n")
          .filter((line) => line.startsWith("gw/g1/plant/a "));
      await until("all 500 arrived", () => new Set(arrived().map(numberOf)).size === 500, 60_000);
      const numbers = arrived().map(numberOf);
      expect([...new Set(numbers)]).to.deep.equal(Array.from({ length: 500 }, (_, n) => n));
      expect(arrived()[0]).to.match(version === "5" ? /gw:g1.*seq:1 / : /"gw":"g1".*"seq":1,/);
      const obeyed = startPeer("mosquitto_sub", [...local(), "-d", "-q", "1", "-t", "cmd/#", "-C", "1", "-F", "%t %p"]);
      await until("the device's side is subscribed", () => obeyed.output().includes("Subscribed"));
      await runPeer("mosquitto_pub", [...remote(), "-q", "1", "-t", "gw/g1/cmd/boiler/set", "-m", "21"]);
      expect(await obeyed.ended).to.equal(0);
      expect(obeyed.output()).to.contain("cmd/boiler/set 21");
      await consumer.stop();
    });
  }
});

function numberOf(line: string): number {
  return Number(/"n":(\d+)/.exec(line)?.[1]);
}
