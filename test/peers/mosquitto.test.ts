import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { needPeers, type PeerProcess, runPeer, startPeer } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

const versions = [
  ["mqttv311", "3.1.1"],
  ["mqttv5", "5"],
] as const;

describe("peer: mosquitto's clients against the broker", () => {
  let gateway: GatewayProcess;
  let port = 0;

  before(async function () {
    needPeers(this, "mosquitto_pub", "mosquitto_sub");
    const [mqtt = 0] = await freePorts(1);
    port = mqtt;
    gateway = await GatewayProcess.create(
      `mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }\nhttp: { listen: false }\n`,
    );
    await gateway.start();
  });
  after(() => gateway?.remove());

  const at = (): string[] => ["-h", "127.0.0.1", "-p", String(port)];

  /** A mosquitto_sub that is subscribed: it prints its own SUBACK with -d. */
  async function subscriber(...args: string[]): Promise<PeerProcess> {
    const peer = startPeer("mosquitto_sub", [...at(), "-d", ...args]);
    await until("mosquitto_sub is subscribed", () => peer.output().includes("Subscribed"));
    return peer;
  }

  for (const [flag, name] of versions) {
    for (const qos of ["0", "1", "2"]) {
      it(`MQTT ${name} QoS ${qos}: what mosquitto_pub sends, mosquitto_sub gets, in order`, async () => {
        const topic = `peer/${flag}/${qos}`;
        const lines = Array.from({ length: 200 }, (_, n) => `reading ${n}`);
        const sub = await subscriber("-V", flag, "-q", qos, "-t", `peer/${flag}/+`, "-C", "200");
        const pub = await runPeer(
          "mosquitto_pub",
          [...at(), "-V", flag, "-q", qos, "-t", topic, "-l"],
          `${lines.join("\n")}\n`,
        );
        expect(pub.code, pub.output).to.equal(0);
        expect(await sub.ended).to.equal(0);
        expect(
          sub
            .output()
            .split("\n")
            .filter((line) => line.startsWith("reading ")),
        ).to.deep.equal(lines);
      });
    }

    it(`MQTT ${name}: retained, then cleared`, async () => {
      const topic = `peer/retained/${flag}`;
      await runPeer("mosquitto_pub", [...at(), "-V", flag, "-q", "1", "-r", "-t", topic, "-m", "kept"]);
      const late = await runPeer("mosquitto_sub", [
        ...at(),
        "-V",
        flag,
        "-t",
        topic,
        "-C",
        "1",
        "-F",
        "%r %p",
        "-W",
        "5",
      ]);
      expect(late.output.trim()).to.equal("1 kept");
      await runPeer("mosquitto_pub", [...at(), "-V", flag, "-q", "1", "-r", "-n", "-t", topic]);
      await runPeer("mosquitto_pub", [...at(), "-V", flag, "-q", "1", "-r", "-t", `${topic}/other`, "-m", "second"]);
      const after = await runPeer("mosquitto_sub", [
        ...at(),
        "-V",
        flag,
        "-t",
        `${topic}/#`,
        "-C",
        "1",
        "-F",
        "%p",
        "-W",
        "5",
      ]);
      expect(after.output.trim()).to.equal("second");
    });

    it(`MQTT ${name}: a will is sent when the client dies, not when it says goodbye`, async () => {
      const topic = `peer/will/${flag}`;
      const watcher = await subscriber("-V", flag, "-q", "1", "-t", `${topic}/#`, "-C", "1");
      const will = (name: string): string[] => [
        "--will-topic",
        `${topic}/${name}`,
        "--will-payload",
        `gone ${name}`,
        "--will-qos",
        "1",
      ];
      // mosquitto_pub says DISCONNECT with reason 0; mosquitto_sub would ask for its will (0x04) in MQTT 5.
      await runPeer("mosquitto_pub", [...at(), "-V", flag, "-t", "nothing", "-m", "x", ...will("polite")]);
      const dying = await subscriber("-V", flag, "-i", `dying-${flag}`, "-t", "nothing", ...will("dying"));
      await dying.stop("SIGKILL");
      await watcher.ended;
      expect(watcher.output()).to.contain("gone dying").and.not.contain("gone polite");
    });

    it(`MQTT ${name}: a persistent session gets what came while it was away, after kill -9 of the gateway too`, async () => {
      const id = ["-i", `away-${flag}`, "-c", ...(flag === "mqttv5" ? ["-x", "3600"] : [])];
      const topic = `peer/away/${flag}`;
      const first = await subscriber("-V", flag, "-q", "1", "-t", topic, ...id);
      await first.stop("SIGINT");
      const lines = Array.from({ length: 50 }, (_, n) => `while away ${n}`);
      const pub = await runPeer(
        "mosquitto_pub",
        [...at(), "-V", flag, "-q", "1", "-t", topic, "-l"],
        `${lines.join("\n")}\n`,
      );
      expect(pub.code, pub.output).to.equal(0);
      await gateway.end("SIGKILL");
      await gateway.start();
      const again = await runPeer("mosquitto_sub", [
        ...at(),
        "-V",
        flag,
        "-q",
        "1",
        "-t",
        topic,
        ...id,
        "-C",
        "50",
        "-W",
        "10",
      ]);
      expect(again.output.trim().split("\n")).to.deep.equal(lines);
    });
  }

  it("$SYS tells its version", async () => {
    const sys = await runPeer("mosquitto_sub", [...at(), "-t", "$SYS/broker/version", "-C", "1", "-W", "15"]);
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
      await until("all 500 arrived", () => new Set(arrived().map(numberOf)).size === 500, 20_000);
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
