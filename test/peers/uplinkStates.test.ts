import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { UplinkState } from "../../src/base/uplinkState.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { keepOpen, needPeers, type PeerProcess, runPeer, startPeer, stopPeers } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { TestCa } from "../helpers/testCa.ts";
import { uplinksConfig } from "../helpers/uplinksConfig.ts";
import { until } from "../helpers/wait.ts";

const dayMs = 86_400_000;

/** A TCP port whose accept queue is full: the kernel answers no further SYN. Prints its port. */
const fullQueue = `
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(0)
held = []
for _ in range(8):
    c = socket.socket(); c.setblocking(False); c.connect_ex(s.getsockname()); held.append(c)
print(s.getsockname()[1], flush=True)
sys.stdin.read()
`;

describe("link states against mosquitto", function () {
  this.timeout(180_000);
  let folder = "";
  let gateway: GatewayProcess;
  let ca: TestCa | undefined;
  let http = 0;
  let port = 0;
  const brokers: PeerProcess[] = [];

  before(async function () {
    needPeers(this, "mosquitto", "mosquitto_pub", "openssl");
    folder = await mkdtemp(join(tmpdir(), "tidegate-"));
    ca = TestCa.make();
  });
  afterEach(async () => {
    await gateway?.remove();
    for (const broker of brokers.splice(0)) await broker.stop();
    stopPeers();
  });
  after(async () => {
    ca?.remove();
    if (folder !== "") await rm(folder, { recursive: true, force: true });
  });

  async function mosquitto(name: string, lines: string): Promise<number> {
    const [own = 0] = await freePorts(1);
    const file = join(folder, `${name}.conf`);
    await writeFile(file, `listener ${own} 127.0.0.1\nuser root\n${lines}\n`);
    const broker = startPeer("mosquitto", ["-v", "-c", file]);
    brokers.push(broker);
    await until(`mosquitto ${name}`, () => /mosquitto version .* running/.test(broker.output()));
    return own;
  }

  async function start(uplinks: Record<string, string>): Promise<void> {
    [port = 0, http = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(uplinksConfig(port, http, uplinks));
    await gateway.start();
  }

  const uplink = async (name: string): Promise<UplinkState> =>
    (await (await fetch(`http://127.0.0.1:${http}/api/v1/uplinks/${name}`)).json()) as UplinkState;

  it("wrong password, right password, our certificate expired, of another authority, missing, good", async () => {
    const authority = ca as TestCa;
    await writeFile(join(folder, "users"), "gw:right\n", { mode: 0o600 });
    expect((await runPeer("mosquitto_passwd", ["-U", join(folder, "users")])).code).to.equal(0);
    const users = await mosquitto("users", `allow_anonymous false\npassword_file ${join(folder, "users")}`);
    const server = authority.issue("/CN=cloud");
    const asks = `cafile ${authority.caFile}\ncertfile ${server.certFile}\nkeyfile ${server.keyFile}\nrequire_certificate true\nallow_anonymous true`;
    const mutual = await mosquitto("mutual", asks);
    const stranger = TestCa.make() as TestCa;
    try {
      const old = authority.issueBetween("/CN=gw", new Date(Date.now() - 9 * dayMs), new Date(Date.now() - dayMs));
      const foreign = stranger.issue("/CN=gw");
      const good = authority.issue("/CN=gw");
      const tls = (own?: { certFile: string; keyFile: string }): string =>
        `url: "mqtts://127.0.0.1:${mutual}", tls: { ca: ${authority.caFile}${own === undefined ? "" : `, cert: ${own.certFile}, key: ${own.keyFile}`} }`;
      await start({
        wrong5: `url: "mqtt://127.0.0.1:${users}", clientId: a, username: gw, password: wrong`,
        wrong4: `url: "mqtt://127.0.0.1:${users}", clientId: b, username: gw, password: wrong, version: 4`,
        right: `url: "mqtt://127.0.0.1:${users}", clientId: c, username: gw, password: right`,
        old: `${tls(old)}, clientId: d`,
        foreign: `${tls(foreign)}, clientId: e`,
        missing: `${tls()}, clientId: f`,
        good: `${tls(good)}, clientId: g`,
      });
      const reasonOf = async (name: string, reason: RegExp): Promise<unknown> =>
        until(`${name} says ${reason}: ${JSON.stringify((await uplink(name)).lastError)}`, async () => {
          const now = await uplink(name);
          return now.attempts >= 2 && reason.test(now.reason ?? "");
        });
      await reasonOf("wrong5", /^not-authorized$/); // mosquitto says 0x87 and 5 for a wrong password
      await reasonOf("wrong4", /^not-authorized$/);
      await reasonOf("old", /^tls-own-expired$/);
      await reasonOf("foreign", /^tls-own-refused$/);
      await reasonOf("missing", /^tls-own-refused$/);
      for (const name of ["right", "good"])
        await until(`${name} is up`, async () => (await uplink(name)).link === "up");
    } finally {
      stranger.remove();
    }
  });

  it("an address that answers no SYN", async () => {
    const peer = startPeer("python3", ["-c", fullQueue], keepOpen);
    brokers.push(peer);
    await until("its port", () => peer.stdout().includes("\n"));
    await start({ hole: `url: "mqtt://127.0.0.1:${peer.stdout().trim()}"` });
    await until("given up", async () => (await uplink("hole")).lastError?.code === "connect-timeout", 60_000);
    expect((await uplink("hole")).lastError?.text).to.match(
      /no connection to .* within 15 s; nothing answers at that address/,
    );
    peer.child.stdin?.end();
  });

  it("sends topics as aliases to mosquitto, which allows ten, and it passes on the topics that were meant", async () => {
    const cloud = await mosquitto("cloud", "allow_anonymous true");
    const subscriber = startPeer("mosquitto_sub", ["-p", String(cloud), "-V", "5", "-t", "#", "-q", "1", "-v"]);
    await until("subscribed", () => brokers.at(-1)?.output().includes("SUBSCRIBE"));
    await start({ cloud: `url: "mqtt://127.0.0.1:${cloud}", meta: []` });
    for (let round = 0; round < 3; round += 1)
      for (let topic = 0; topic < 15; topic += 1) {
        const args = [
          "-p",
          String(port),
          "-q",
          "1",
          "-t",
          `plant/hall-${topic}/temperature`,
          "-m",
          `${topic}.${round}`,
        ];
        expect((await runPeer("mosquitto_pub", args)).code).to.equal(0);
      }
    const lines = await until("all are there", () => {
      const got = subscriber.stdout().trim().split("\n");
      return got.length === 45 && got;
    });
    for (const line of lines) expect(line).to.match(/^plant\/hall-(\d+)\/temperature \1\.\d$/);
    const metrics = await (await fetch(`http://127.0.0.1:${http}/metrics`)).text();
    const saved = Number(/alias_saved_bytes_total\{uplink="cloud"\} (\d+)/.exec(metrics)?.[1]);
    const length = "plant/hall-0/temperature".length;
    expect(saved).to.equal(10 * (2 * (length - 3) - 3)); // the first ten topics, sent by name once each
    await subscriber.stop();
  });
});
