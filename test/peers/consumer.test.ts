import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { CloudProxy } from "../helpers/cloudProxy.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { needPeers, type PeerProcess, startPeer } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { RawClient } from "../helpers/rawClient.ts";
import { until } from "../helpers/wait.ts";
import { Mosquitto } from "./cloudBrokers.ts";

// The consumer of the README, as it is printed there, at a real broker that gets duplicates.

const root = join(import.meta.dirname, "..", "..");

function consumerCode(): string {
  const section = readFileSync(join(root, "README.md"), "utf8").split("## A consumer that drops duplicates")[1] ?? "";
  const code = /```js\n(.*?)```/s.exec(section)?.[1];
  if (code === undefined) throw new Error("README.md has no consumer");
  return code;
}

describe("peer: the consumer of the README", function () {
  this.timeout(180_000);
  let broker: Mosquitto | undefined;
  let proxy: CloudProxy | undefined;
  let gateway: GatewayProcess | undefined;
  let device: RawClient | undefined;
  let peers: PeerProcess[] = [];
  afterEach(async () => {
    await device?.drop();
    await gateway?.remove();
    await Promise.all(peers.map((peer) => peer.stop("SIGKILL")));
    await proxy?.close();
    await broker?.remove();
    broker = proxy = gateway = device = undefined;
    peers = [];
  });

  it("has 20 lines", () => {
    const lines = consumerCode().split("\n");
    expect(lines.filter((line) => line.trim() !== "").length).to.be.at.most(20);
  });

  for (const version of [5, 4] as const)
    it(`MQTT ${version === 5 ? "5" : "3.1.1 with the envelope"}: works on each message once, though the broker hands out duplicates`, async function () {
      needPeers(this, "mosquitto", "mosquitto_sub");
      broker = new Mosquitto(version, "none", false);
      await broker.prepare();
      await broker.start();
      const cloudPort = Number(new URL(broker.url()).port);
      proxy = await CloudProxy.open(cloudPort);
      const [port = 0] = await freePorts(1);
      gateway = await GatewayProcess.create(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${proxy.port}
    version: ${version}
    envelope: ${version === 5 ? "none" : "json"}
    backoff: { min: 20ms, max: 100ms }
    forward: [ { topic: "plant/#", to: "gw/{gateway}/{topic}" } ]
`);
      const code = consumerCode().replace("protocolVersion: 5", `protocolVersion: ${version}`);
      const consumer = startPeer(process.execPath, ["--input-type=module", "-e", code], undefined, {
        env: { CLOUD_URL: broker.url() },
        cwd: root,
      });
      const plain = startPeer("mosquitto_sub", ["-h", "127.0.0.1", "-p", String(cloudPort), "-q", "1", "-t", "gw/#"]);
      peers = [consumer, plain];
      const lines = (peer: PeerProcess): string[] =>
        peer
          .stdout()
          .split("\n")
          .filter((line) => line.includes('"n":'));
      // Both are subscribed: they see what comes from elsewhere, which has no identity and is no duplicate of anything.
      const probe = await RawClient.open({ port: cloudPort, clientId: "probe", version: 4, persistent: false });
      await until("both are subscribed", () => {
        probe?.publish("gw/probe", '{"probe":true}', 0, 0);
        return peers.every((peer) => peer.stdout().split('"probe"').length > 3);
      });
      await probe?.drop();
      await gateway.start();
      device = await RawClient.open({ port, clientId: "device", version: 4, persistent: false });
      const total = 200;
      const there = (n: number): Promise<unknown> =>
        until(`number ${n} is at the cloud`, () => lines(plain).map(numberOf).includes(n));
      for (let n = 0; n < total; n += 1) {
        if (n % 40 === 30) {
          await there(n - 1); // the link is up; mosquitto takes 20 unacknowledged ones at most
          proxy.loses = true;
        }
        device?.publish("plant/a", `{"n":${n}}`, 1, n + 1);
        await device?.take("puback");
        if (n % 40 !== 39) continue;
        await there(n);
        proxy.loses = false;
        proxy.interrupt();
      }
      const worked = (): boolean => new Set(lines(consumer).map(numberOf)).size === total;
      await until("all are worked on", worked, 60_000).catch((error: Error) => {
        throw new Error(`${error.message}: ${lines(consumer).length} lines; ${consumer.output().slice(-500)}`);
      });
      await until("the broker has handed out duplicates", () => lines(plain).length > total);
      // What the plain subscriber has, the consumer was given too: a last one behind all of it.
      device?.publish("plant/a", `{"n":${total}}`, 1, total + 1);
      await until("the last one", () => lines(consumer).map(numberOf).includes(total));
      expect(lines(consumer).map(numberOf)).to.deep.equal(Array.from({ length: total + 1 }, (_, n) => n));
    });
});

const numberOf = (line: string): number => Number(/"n":(\d+)/.exec(line)?.[1]);
