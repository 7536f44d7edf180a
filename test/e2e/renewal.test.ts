import { copyFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TlsOptions } from "node:tls";
import { expect } from "chai";
import type { UplinkState } from "../../src/base/uplinkState.ts";
import { FakeCloud } from "../helpers/fakeCloud.ts";
import { GatewayProcess, runProgram } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { type Issued, TestCa } from "../helpers/testCa.ts";
import { uplinksConfig } from "../helpers/uplinksConfig.ts";
import { until } from "../helpers/wait.ts";

const dayMs = 86_400_000;
const ago = (ms: number): Date => new Date(Date.now() - ms);

describe("passwords and certificates of uplinks that are renewed while the gateway runs", function () {
  this.timeout(60_000);
  let gateway: GatewayProcess;
  let http = 0;
  let ca: TestCa | undefined;
  let cloud: FakeCloud;

  before(() => {
    ca = TestCa.make();
  });
  after(() => ca?.remove());
  beforeEach(async () => {
    gateway = await GatewayProcess.create("");
  });
  afterEach(async () => {
    await gateway.remove();
    await cloud?.close();
  });

  const file = (name: string): string => join(gateway.dir, name);

  async function start(uplink: string): Promise<void> {
    const ports = await freePorts(2);
    http = ports[1] ?? 0;
    await gateway.configure(uplinksConfig(ports[0] ?? 0, http, { cloud: uplink }));
    await gateway.start();
  }

  async function uplink(): Promise<UplinkState> {
    return (await (await fetch(`http://127.0.0.1:${http}/api/v1/uplinks/cloud`)).json()) as UplinkState;
  }

  const becomes = (what: string, is: (state: UplinkState) => boolean): Promise<UplinkState> =>
    until(what, async () => {
      const state = await uplink();
      return is(state) && state;
    });

  async function put({ certFile, keyFile }: Issued): Promise<void> {
    await copyFile(certFile, file("gw.crt"));
    await copyFile(keyFile, file("gw.key"));
  }

  /** A cloud that asks for a certificate, and an uplink that has one in gw.crt and gw.key. */
  async function withCertificate(authority: TestCa, own: Issued): Promise<void> {
    const { cert, key } = authority.issue("/CN=cloud");
    const asking: TlsOptions = { cert, key, ca: authority.ca, requestCert: true, rejectUnauthorized: true };
    cloud = await FakeCloud.open(5, {}, asking);
    await put(own);
    await start(`url: "${cloud.url}", tls: { ca: ${authority.caFile}, cert: gw.crt, key: gw.key }`);
  }

  it("a certificate that had run out is taken up on SIGHUP, at once and without a restart", async function () {
    if (ca === undefined) return this.skip();
    await withCertificate(ca, ca.issueBetween("/CN=g1", ago(9 * dayMs), ago(dayMs)));
    const down = await becomes("it has run out", ({ reason }) => reason === "tls-own-expired");
    expect(down.problem).to.match(/renew tls\.cert \(files are read anew for each attempt/);
    await put(ca.issue("/CN=g1"));
    process.kill(gateway.pid, "SIGHUP");
    await becomes("up with the new one", ({ link }) => link === "up");
    expect(gateway.lines.filter(({ msg }) => msg?.startsWith("needs a restart"))).to.deep.equal([]);
  });

  it("a key that does not belong to the certificate yet, then no file: those of before stay in use, and it is said", async function () {
    if (ca === undefined) return this.skip();
    const authority = ca;
    await withCertificate(authority, authority.issue("/CN=g1"));
    await becomes("up", ({ link, problem }) => link === "up" && problem === undefined);
    const renewed = authority.issue("/CN=g1");
    await copyFile(renewed.certFile, file("gw.crt")); // and the key is still the old one
    cloud.connections.at(-1)?.close();
    const half = await becomes("up again", ({ link, problem }) => link === "up" && problem !== undefined);
    expect(half.problem).to.match(/of before stay in use: .*cannot be used: .*mismatch/i);
    await rm(file("gw.crt"));
    cloud.connections.at(-1)?.close();
    const gone = await becomes(
      "up again",
      ({ link, problem }) => link === "up" && problem?.includes("ENOENT") === true,
    );
    expect(gone.problem).to.contain("gw.crt");
    await put(renewed);
    process.kill(gateway.pid, "SIGHUP");
    await becomes("all is well, on the same link", ({ link, problem }) => link === "up" && problem === undefined);
    expect(cloud.connections.at(-1)?.closed).to.equal(false);
  });

  it("a password in a file is read anew for each connection, and is no change of the config", async () => {
    cloud = await FakeCloud.open(5, {
      connect: (connection, packet) => connection.connack({ code: String(packet["password"]) === "new" ? 0 : 0x86 }),
    });
    await writeFile(file("password"), "old\n");
    await start(`url: "${cloud.url}", username: gw, password: { file: password }`);
    await becomes("refused", ({ reason }) => reason === "bad-credentials");
    await writeFile(file("password"), "new\n");
    expect((await runProgram(["queue", "resume", "cloud", "-c", gateway.configFile])).code).to.equal(0);
    await becomes("up", ({ link }) => link === "up");
    const from = gateway.logged;
    process.kill(gateway.pid, "SIGHUP");
    await gateway.line("reloaded", from);
    expect(gateway.since(from).filter(({ msg }) => msg?.startsWith("needs a restart"))).to.deep.equal([]);
    expect(JSON.stringify(gateway.lines)).to.not.match(/"old|"new/);
  });
});
