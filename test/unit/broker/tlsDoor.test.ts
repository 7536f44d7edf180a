import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { connectAsync } from "mqtt";
import { systemClock } from "../../../src/base/clock.ts";
import type { TidegateError } from "../../../src/base/errors.ts";
import { type Log, silentLog } from "../../../src/base/log.ts";
import { Meter } from "../../../src/base/meter.ts";
import { createBroker } from "../../../src/broker/broker.ts";
import { type Broker, type ListenerTls, limitDefaults } from "../../../src/broker/options.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { until } from "../../helpers/wait.ts";

describe("doors on the network", () => {
  let folder: string;
  let tls: ListenerTls | undefined;
  let broker: Broker | undefined;
  const file = (name: string): Buffer => readFileSync(join(folder, name));

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    if (spawnSync("openssl", ["version"]).status !== 0) {
      process.stdout.write("      without TLS: openssl not found: apt-get install openssl\n");
      return;
    }
    const name = ["-subj", "/CN=localhost", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"];
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem"];
    execFileSync("openssl", ["req", "-x509", ...key, "-out", "cert.pem", ...name], { cwd: folder, stdio: "pipe" });
    tls = { cert: file("cert.pem"), key: file("key.pem"), ca: file("cert.pem"), clientCert: "required" };
  });
  after(() => rmSync(folder, { recursive: true, force: true }));
  afterEach(() => broker?.close());

  function open(limits: Partial<typeof limitDefaults> = {}, log: Log = silentLog): Broker {
    const routing = { routesFor: () => [] };
    const forwarding = { forwardsFor: () => [] };
    const shared = { store: new MemoryStore(), clock: systemClock, log, meter: new Meter() };
    const made = createBroker(
      { anonymous: false, limits: { ...limitDefaults, ...limits }, version: "0" },
      { ...shared, routing, forwarding },
    );
    broker = made;
    return made;
  }

  function silent(port: number): Socket {
    const socket = connectSocket(port, "127.0.0.1");
    socket.on("error", () => {});
    return socket;
  }

  it("a required certificate is who you are: no user name is needed, though anonymous is false", async () => {
    if (tls === undefined) return;
    const made = open();
    const { url } = await made.listen({ url: "mqtts://127.0.0.1:0", tls });
    const known = { ca: file("cert.pem"), cert: file("cert.pem"), key: file("key.pem"), reconnectPeriod: 0 };
    const client = await connectAsync(url, known);
    await client.publishAsync("t", "x", { qos: 1 });
    await client.endAsync();
    const plain = await made.listen({ url: "mqtt://127.0.0.1:0" });
    const stranger = await connectAsync(plain.url, { reconnectPeriod: 0 }).catch((caught: Error) => caught);
    expect(String(stranger)).to.match(/Not authorized/i);
  });

  it("who has not ended the handshake counts as a connection, and leaves room when it goes", async () => {
    if (tls === undefined) return;
    const { port } = await open({ maxConnectionsPerAddress: 2 }).listen({ url: "mqtts://127.0.0.1:0", tls });
    const kept = [silent(port), silent(port)];
    await until("two are in", () => kept.every((socket) => socket.readyState === "open"));
    const third = silent(port);
    await until("the third is out", () => third.destroyed);
    for (const socket of kept) socket.destroy();
    const known = { ca: file("cert.pem"), cert: file("cert.pem"), key: file("key.pem"), reconnectPeriod: 0 };
    for (let round = 0; round < 3; round += 1) {
      await until("a client gets in", async () => {
        const client = await connectAsync(`mqtts://127.0.0.1:${port}`, known).catch(() => undefined);
        await client?.endAsync();
        return client !== undefined;
      });
    }
  });

  it("closing does not wait for a handshake", async () => {
    if (tls === undefined) return;
    const { port } = await open({ connectTimeoutMs: 10_000 }).listen({ url: "mqtts://127.0.0.1:0", tls });
    const socket = silent(port);
    await until("it is in", () => socket.readyState === "open");
    await new Promise((resolve) => setTimeout(resolve, 50));
    const fromMs = performance.now();
    await broker?.close();
    expect(performance.now() - fromMs).to.be.lessThan(2000);
    await until("it was ended", () => socket.destroyed);
  });

  it("rubbish is counted each time, and logged once in ten seconds for an address", async () => {
    const lines: string[] = [];
    const { port } = await open({}, { ...silentLog, info: (_fields, line) => void lines.push(line) }).listen({
      url: "mqtt://127.0.0.1:0",
    });
    const sockets = Array.from({ length: 20 }, () => silent(port));
    for (const socket of sockets) socket.resume().write(Buffer.alloc(8));
    await until("all are out", () => sockets.every((socket) => socket.destroyed));
    expect(lines.filter((line) => line.startsWith("TG_PROTOCOL"))).to.have.length(1);
  });

  it("a file that is no socket stays where it is", async () => {
    const path = join(folder, "precious.db");
    writeFileSync(path, "data");
    const error = await open()
      .listen({ url: `unix://${path}` })
      .then(
        () => undefined,
        (caught: TidegateError) => caught,
      );
    expect(error).to.include({ code: "TG_LISTEN" });
    expect(error?.message).to.match(/not a socket/);
    expect(readFileSync(path, "utf8")).to.equal("data");
  });
});
