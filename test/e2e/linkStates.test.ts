import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, createServer, type Server, type Socket } from "node:net";
import { expect } from "chai";
import mqtt from "mqtt";
import type { UplinkState } from "../../src/base/uplinkState.ts";
import { type CloudConnection, FakeCloud } from "../helpers/fakeCloud.ts";
import { GatewayProcess, runProgram } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { type Issued, TestCa } from "../helpers/testCa.ts";
import { uplinksConfig } from "../helpers/uplinksConfig.ts";
import { until } from "../helpers/wait.ts";

const dayMs = 86_400_000;
const ago = (ms: number): Date => new Date(Date.now() - ms);

/** Passes bytes on until it is frozen: then both sides keep their connections and hear nothing more. */
class FreezingProxy {
  frozen = false;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(target: number) {
    this.#server = createServer((client) => {
      const cloud = connectTcp(target, "127.0.0.1");
      for (const [from, to] of [
        [client, cloud],
        [cloud, client],
      ] as const) {
        this.#sockets.add(from);
        from.on("error", () => {});
        from.on("data", (chunk) => !this.frozen && to.write(chunk));
        from.on("close", () => to.destroy());
      }
    });
  }

  async listen(): Promise<number> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

describe("link states, with the real binary", function () {
  this.timeout(180_000);
  let gateway: GatewayProcess;
  let http = 0;
  let port = 0;
  let ca: TestCa | undefined;
  const closing: Array<() => unknown> = [];

  before(() => {
    ca = TestCa.make();
  });
  after(() => ca?.remove());
  afterEach(async () => {
    await gateway.remove();
    for (const close of closing.splice(0)) await close();
  });

  async function start(uplinks: Record<string, string>): Promise<void> {
    [port = 0, http = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(uplinksConfig(port, http, uplinks));
    await gateway.start();
  }

  const get = async (path: string): Promise<string> => (await fetch(`http://127.0.0.1:${http}${path}`)).text();
  const uplink = async (name: string): Promise<UplinkState> =>
    JSON.parse(await get(`/api/v1/uplinks/${name}`)) as UplinkState;

  async function cloud(
    version: 4 | 5,
    script: Parameters<typeof FakeCloud.open>[1] = {},
    tls?: object,
  ): Promise<FakeCloud> {
    const opened = await FakeCloud.open(version, script, tls);
    closing.push(() => opened.close());
    return opened;
  }

  /** Waits until the uplink says this reason, then checks that all places do, and that it was logged once and not each time. */
  async function shows(name: string, reason: string, says: RegExp, msMax = 10_000): Promise<void> {
    const state = await until(
      `${name} is down for ${reason}, twice: ${JSON.stringify((await uplink(name)).lastError)}`,
      async () => {
        const now = await uplink(name);
        return now.reason === reason && now.attempts >= 2 && now;
      },
      msMax,
    );
    expect(state.problem).to.match(says);
    expect(state.lastError).to.include({ code: reason, text: state.problem });
    expect(await get("/metrics")).to.match(
      new RegExp(`^tidegate_uplink_fault\\{reason="${reason}",uplink="${name}"\\} 1$`, "m"),
    );
    const lines = gateway.lines.filter((line) => line["uplink"] === name && line["reason"] === reason);
    expect(lines, JSON.stringify(lines)).to.have.length(1);
  }

  it("network: nobody there, no such name, no answer, gone silent, refused, nonsense: each is told apart, everywhere", async () => {
    const [nobody = 0] = await freePorts(1);
    const deaf = createServer(() => {});
    deaf.listen(0, "127.0.0.1");
    await once(deaf, "listening");
    closing.push(() => deaf.close());
    const behind = await cloud(5);
    const proxy = new FreezingProxy(behind.port);
    closing.push(() => proxy.close());
    const wrong = await cloud(5, { connect: (connection) => connection.connack({ code: 0x86 }) });
    const forbidden = await cloud(4, { connect: (connection) => connection.connack({ code: 5 }) });
    const moved = await cloud(5, {
      connect: (connection) => connection.connack({ code: 0x9d, properties: { serverReference: "evil.example\n:1" } }),
    });
    const nonsense = await cloud(5, {
      connect: (connection) => connection.connack({ properties: { topicAliasMaximum: 4 } }),
      publish: () => {},
    });
    const hostile = await cloud(5, {
      // CONNACK whose Receive Maximum is 0 (MQTT 5 section 3.2.2.3.3)
      connect: (connection) => connection.sendRaw(Uint8Array.of(0x20, 6, 0, 0, 3, 0x21, 0, 0)),
    });
    const rude = await cloud(5, { connect: (connection) => connection.close() });
    await start({
      refused: `url: "mqtt://127.0.0.1:${nobody}"`,
      dns: `url: "mqtt://no-such-host.invalid:1883"`,
      deaf: `url: "mqtt://127.0.0.1:${(deaf.address() as AddressInfo).port}"`,
      silent: `url: "mqtt://127.0.0.1:${await proxy.listen()}", keepAlive: 2s`,
      wrong: `url: "${wrong.url}", username: me, password: TOPSECRET`,
      forbidden: `url: "${forbidden.url}", version: 4`,
      moved: `url: "${moved.url}"`,
      hostile: `url: "${hostile.url}"`,
      rude: `url: "${rude.url}"`,
      well: `url: "${nonsense.url}"`,
    });
    await shows("refused", "connection-refused", /ECONNREFUSED.*check the port/);
    await shows("dns", "dns-failed", /no-such-host\.invalid cannot be looked up.*DNS/);
    await shows("wrong", "bad-credentials", /wrong user name or password.*set username and password/);
    await shows("forbidden", "not-authorized", /not authorized.*access rules/);
    await shows("moved", "use-another-server", /it has moved: evil\.example\?:1.*not followed/);
    await shows("hostile", "protocol-error", /the cloud broke the protocol/);
    await shows("rude", "closed-at-connect", /closed before it answered/);
    await until("up", async () => (await uplink("silent")).link === "up");
    proxy.frozen = true;
    const silent = await until(
      "the silence is noticed",
      async () => {
        const now = await uplink("silent");
        return now.lastError?.code === "ping-timeout" && now;
      },
      60_000,
    );
    expect(silent.lastError?.text).to.match(/no PINGRESP within 2 s.*half-open/);
    // Accepts and never answers: known after 15 s, the first time.
    const unanswered = await until("no answer", async () => (await uplink("deaf")).reason === "no-answer", 60_000);
    expect(unanswered).to.equal(true);
    expect((await uplink("deaf")).problem).to.match(
      /no answer from mqtt:.* within 15 s; the port accepts and says nothing/,
    );

    expect((await uplink("well")).link).to.equal("up"); // nobody held it up
    const { stdout } = await runProgram(["status", "-c", gateway.configFile]);
    for (const words of [
      /\[dns-failed\] no-such-host/,
      /\[bad-credentials\] /,
      /refused down since .* attempts?, /,
      /well up since/,
    ])
      expect(stdout).to.match(words);
    expect(JSON.stringify(gateway.lines) + stdout + (await get("/api/v1/status"))).to.not.include("TOPSECRET");
    const client = mqtt.connect(`mqtt://127.0.0.1:${port}`);
    closing.push(() => client.endAsync(true));
    const retained = new Map<string, { reason?: string; problem?: string }>();
    client.on("message", (topic, payload) => retained.set(topic, JSON.parse(String(payload))));
    await client.subscribeAsync("$SYS/tidegate/uplinks/+/state");
    await until(
      "$SYS says it",
      () => retained.get("$SYS/tidegate/uplinks/moved/state")?.reason === "use-another-server",
    );
    await until("$SYS says up", () => retained.has("$SYS/tidegate/uplinks/well/state"));
    expect(retained.get("$SYS/tidegate/uplinks/well/state")).to.not.have.property("reason");
  });

  it("TLS: expired, not yet valid, not trusted, another name, no TLS there: each is told apart, and how to mend it", async function () {
    if (ca === undefined) return this.skip();
    const stranger = TestCa.make();
    closing.push(() => stranger?.remove());
    const listen = async ({ cert, key }: Issued): Promise<string> => (await cloud(5, {}, { cert, key })).url;
    const own = ca.issueBetween("/CN=gw", ago(9 * dayMs), ago(dayMs));
    const good = ca.issue("/CN=cloud");
    const asking = { cert: good.cert, key: good.key, ca: ca.ca, requestCert: true, rejectUnauthorized: true };
    const tls = `tls: { ca: ${ca.caFile} }`;
    await start({
      expired: `url: "${await listen(ca.issueBetween("/CN=a", ago(9 * dayMs), ago(dayMs)))}", ${tls}`,
      early: `url: "${await listen(ca.issueBetween("/CN=b", ago(-dayMs), ago(-9 * dayMs)))}", ${tls}`,
      untrusted: `url: "${await listen(stranger?.issue("/CN=c") as Issued)}", ${tls}`,
      name: `url: "${await listen(ca.issue("/CN=d", "DNS:other.example"))}", ${tls}`,
      plain: `url: "mqtts://127.0.0.1:OWN", ${tls}`, // a broker that closes what is no CONNECT: our own
      tls: `url: "${(await listen(good)).replace("mqtts:", "mqtt:")}"`,
      own: `url: "${(await cloud(5, {}, asking)).url}", tls: { ca: ${ca.caFile}, cert: ${own.certFile}, key: ${own.keyFile} }`,
      files: `url: "mqtts://127.0.0.1:1", tls: { ca: ${ca.caFile}, cert: ${ca.caFile}, key: ${own.keyFile} }`,
      good: `url: "${await listen(good)}", ${tls}`,
    });
    await shows(
      "expired",
      "tls-expired",
      /certificate has expired \(our clock says 20.*renew the broker's certificate/,
    );
    await shows("early", "tls-not-yet-valid", /not yet valid \(our clock says 20.*set this machine's clock/);
    await shows("untrusted", "tls-not-trusted", /set tls\.ca to the authority/);
    await shows("name", "tls-wrong-name", /127\.0\.0\.1 is not in the cert's list.*use a name in url/);
    await shows("plain", "tls-failed", /check that the port speaks TLS/);
    await shows("tls", "closed-at-connect", /check port, mqtt or mqtts/);
    await shows("own", "tls-own-expired", /tls\.cert is valid from .* to .*our clock says.*renew tls\.cert/);
    await shows("files", "tls-files", /cannot be used: check the files/);
    await until("the good one is up", async () => (await uplink("good")).link === "up");
  });

  it("a certificate that runs out in between: what waits stays, and goes when it is renewed", async function () {
    if (ca === undefined) return this.skip();
    const authority = ca;
    const [at = 0] = await freePorts(1);
    await start({ cloud: `url: "mqtts://127.0.0.1:${at}", tls: { ca: ${authority.caFile} }` });
    const client = mqtt.connect(`mqtt://127.0.0.1:${port}`);
    closing.push(() => client.endAsync(true));
    await client.publishAsync("plant/1", "before", { qos: 1 });
    // Its ten seconds are for one connection alone: all else has been started.
    const endsMs = Date.now() + 10_000;
    const short = authority.issueBetween("/CN=cloud", ago(dayMs), new Date(endsMs));
    const first = await FakeCloud.open(5, {}, { cert: short.cert, key: short.key }, at);
    closing.push(() => first.close());
    await until("delivered", () => first.payloads.includes("before"));
    await until("it has run out", () => Date.now() > endsMs + 1000, 60_000);
    await first.close();
    const again = await FakeCloud.open(5, {}, { cert: short.cert, key: short.key }, at);
    closing.push(() => again.close());
    await client.publishAsync("plant/1", "meanwhile", { qos: 1 });
    await shows("cloud", "tls-expired", /has expired/);
    expect((await uplink("cloud")).queue.messages).to.equal(1);
    await again.close();
    const fresh = authority.issue("/CN=cloud");
    const renewed = await FakeCloud.open(5, {}, { cert: fresh.cert, key: fresh.key }, at);
    closing.push(() => renewed.close());
    // Who has mended it need not wait for a pause that is meant for what nobody mends.
    const { stdout } = await runProgram(["queue", "resume", "cloud", "-c", gateway.configFile]);
    expect(stdout).to.include("sends again");
    await until("delivered", () => renewed.payloads.includes("meanwhile"));
    expect(await uplink("cloud")).to.deep.include({ link: "up", attempts: 0 });
    // Or it was tried once more while nobody listened there.
    expect((await uplink("cloud")).lastError?.code).to.be.oneOf(["tls-expired", "connection-refused"]);
  });

  it("several urls: the next one when the first is gone, a new session there, and back after a link that stood", async () => {
    const connects: string[] = [];
    const noting =
      (name: string) =>
      (connection: CloudConnection): void => {
        connects.push(name);
        connection.connack();
      };
    const first = await cloud(5, { connect: noting("first"), publish: () => {} });
    const second = await cloud(5, { connect: noting("second") });
    await start({ cloud: `urls: ["${first.url}", "${second.url}"]` });
    const client = mqtt.connect(`mqtt://127.0.0.1:${port}`);
    closing.push(() => client.endAsync(true));
    await client.publishAsync("plant/1", "unanswered", { qos: 1 });
    await until("sent", () => first.payloads.length === 1);
    const started = performance.now();
    await until("it stood longer than backoff.max", () => performance.now() - started > 150);
    const { port: at } = first;
    await first.close();
    await until("the second has it", () => second.payloads.length === 1);
    expect(second.last?.seen("publish")[0]).to.include({ dup: false }); // a session of its own: nothing was sent there before
    await until("acknowledged", async () => (await uplink("cloud")).queue.messages === 0);
    expect(await uplink("cloud")).to.include({ link: "up", url: second.url });
    const again = await FakeCloud.open(5, { connect: noting("again") }, undefined, at);
    closing.push(() => again.close());
    const stood = performance.now();
    await until("the second stood as well", () => performance.now() - stood > 150);
    second.last?.close();
    await until("back at the first", () => connects.at(-1) === "again");
  });
});
