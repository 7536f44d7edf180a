import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { type CloudConnection, FakeCloud } from "../../helpers/fakeCloud.ts";
import { freePorts } from "../../helpers/ports.ts";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches, uplinkOptions } from "./bench.ts";

afterEach(closeBenches);

/** What the broker would show of the state, oldest first. */
const announced = (bench: Bench): Array<{ link: string; problem?: string }> =>
  bench.publisher.messages
    .filter(({ topic }) => topic === "$SYS/tidegate/uplinks/cloud/state")
    .map(({ payload }) => JSON.parse(Buffer.from(payload).toString()));

for (const version of [4, 5] as const) {
  describe(`uplink/link, MQTT ${version === 4 ? "3.1.1" : "5"}`, () => {
    it("says who it is, and asks for a session that outlives the link", async () => {
      const bench = await Bench.up({
        version,
        clientId: "gw-7",
        username: "u",
        password: "p",
        sessionExpiryMs: 90_500,
      });
      const connect = bench.cloud.last?.packets[0];
      expect(connect).to.include({
        cmd: "connect",
        protocolVersion: version,
        clientId: "gw-7",
        clean: false,
        keepalive: 60,
      });
      expect(connect?.["username"]).to.equal("u");
      expect(String(connect?.["password"])).to.equal("p");
      expect(connect?.["will"]).to.equal(undefined);
      if (version === 5)
        expect({ ...connect?.properties }).to.deep.equal({
          sessionExpiryInterval: 91,
          receiveMaximum: 100,
          maximumPacketSize: 1024 * 1024,
        });
    });

    it("tells a person why it was refused, and tries again after a pause", async () => {
      const codes =
        version === 4
          ? {
              1: "try version: 5",
              2: "clientId",
              3: "unavailable",
              4: "wrong user name or password",
              5: "not authorized",
            }
          : { 132: "try version: 4", 133: "clientId", 134: "wrong user name", 135: "not authorized", 159: "too often" };
      const due = Object.keys(codes).map(Number);
      let at = 0;
      const bench = await Bench.open(
        { version },
        { connect: (connection) => connection.connack({ code: due[Math.min(at++, due.length - 1)] ?? 0 }) },
      );
      bench.uplink.start();
      for (const [index, code] of due.entries()) {
        await until(
          "refused",
          () => bench.cloud.connections.length === index + 1 && bench.uplink.state().link === "backoff",
        );
        expect(bench.uplink.state().problem).to.match(/^the cloud refused the connection: /);
        expect(bench.uplink.state().problem).to.include((codes as Record<number, string>)[code]);
        expect(bench.clock.timers).to.equal(1); // the pause, and nothing of the connection
        bench.retry();
      }
    });

    it("retries a cloud that was never there, with growing pauses, and is up when it comes", async () => {
      const [port = 0] = await freePorts(1);
      const bench = await Bench.open({ version, urls: [`mqtt://127.0.0.1:${port}`] });
      bench.queue.add("waited");
      bench.uplink.start();
      const pauses: number[] = [];
      for (let attempt = 1; attempt <= 12; attempt += 1) {
        await bench.untilDown();
        pauses.push(bench.clock.nextMs);
        expect(bench.uplink.state().problem).to.match(/ECONNREFUSED/);
        if (attempt < 12) bench.retry();
      }
      for (const [attempt, pause] of pauses.entries())
        expect(pause).to.be.within(1000, Math.min(60_000, 1000 * 2 ** attempt));
      expect(Math.max(...pauses)).to.be.above(4000);
      const cloud = await FakeCloud.open(version, {}, undefined, port);
      try {
        bench.retry();
        await bench.untilSettled(1);
        expect(cloud.payloads).to.deep.equal(["waited"]);
        expect(bench.uplink.state()).to.include({ link: "up", problem: undefined, acknowledged: 1, inflight: 0 });
      } finally {
        await cloud.close();
      }
    });

    it("keeps the link alive, and takes a missing answer for a dead link", async () => {
      let answers = true;
      const bench = await Bench.up(
        { version, keepAliveMs: 20_000 },
        { ping: (connection) => answers && connection.send({ cmd: "pingresp" }) },
      );
      const connection = bench.cloud.last;
      for (let pings = 1; pings <= 3; pings += 1) {
        bench.clock.advance(12_500);
        await until("a ping", () => connection?.seen("pingreq").length === pings);
        await bench.quiet();
      }
      expect(bench.uplink.state().link).to.equal("up");
      answers = false;
      bench.clock.advance(12_500);
      await until("a ping", () => connection?.seen("pingreq").length === 4);
      expect(bench.uplink.state().link).to.equal("up");
      bench.passUntilDown(12_500);
      expect(bench.uplink.state()).to.include({ link: "backoff", reason: "ping-timeout" });
      expect(bench.uplink.state().problem).to.match(/^no PINGRESP within 10 s; /);
      expect(bench.clock.timers).to.equal(1);
      await until("the socket is closed", () => connection?.closed);
    });

    it("leaves a cloud that talks nonsense, before and after CONNACK, and comes again", async () => {
      const nonsense: Array<[bytes: number[], before: boolean]> = [
        [[0xd0, 0x00], true], // PINGRESP before CONNACK
        [[0x00, 0x00], true],
        [[0x20, 0xff, 0xff, 0xff, 0xff, 0x7f], true],
        [[0x20, 0x02, 0x00, 0x00], false], // a second CONNACK
        [[0x82, 0x05, 0, 1, 0, 1, 0x61, 0], false], // SUBSCRIBE from a server
        [[0x60, 0x02, 0, 1], false], // PUBREL without its flags
        [[0x30, 0xff, 0xff, 0xff, 0x7f], false], // a PUBLISH of 256 MiB
        [[0x36, 0x05, 0, 1, 0x61, 0, 1], false], // QoS 3
      ];
      let at = 0;
      const bench = await Bench.open(
        { version },
        {
          connect(connection) {
            const [bytes, before] = nonsense[at++] ?? [[], false];
            if (!before) connection.connack();
            connection.sendRaw(Uint8Array.from(bytes));
          },
        },
      );
      bench.uplink.start();
      for (const [index] of nonsense.entries()) {
        await until(
          "left",
          () => bench.cloud.connections.length === index + 1 && bench.uplink.state().link === "backoff",
        );
        expect(bench.uplink.state().problem, String(nonsense[index])).to.match(/^the cloud broke the protocol: /);
        const goodbyes = bench.cloud.last?.seen("disconnect") ?? [];
        await until("closed", () => bench.cloud.last?.closed);
        if (version === 4) expect(goodbyes).to.deep.equal([]); // in 3.1.1 it would mean that all is well
        bench.retry();
      }
      await bench.untilUp();
    });

    it("stop() while up says DISCONNECT, resolves when the socket is gone, leaves nothing, and can be started again", async () => {
      const bench = await Bench.up({ version }, { publish() {} });
      bench.queue.add("unanswered");
      await bench.untilPublished(1);
      await bench.uplink.stop();
      expect(bench.clock.timers).to.equal(0);
      await until("closed", () => bench.cloud.last?.closed);
      expect(bench.cloud.last?.packets.at(-1)).to.include({ cmd: "disconnect" });
      expect(bench.uplink.state()).to.include({ link: "stopped", inflight: 0 });
      expect(announced(bench).at(-1)?.link).to.equal("stopped");
      expect(bench.meter.expose()).to.not.include("tidegate_uplink_up{");
      bench.cloud.script = {};
      bench.uplink.start();
      await bench.untilSettled(1);
      expect(bench.cloud.payloads).to.deep.equal(["unanswered", "unanswered"]);
      expect(bench.meter.expose()).to.include("tidegate_uplink_up{");
    });

    it("stop() during connecting and during the pause leaves nothing", async () => {
      const bench = await Bench.open({ version }, { connect() {} }); // never answers
      bench.uplink.start();
      await until("CONNECT arrived", () => bench.cloud.last?.packets.length === 1);
      await bench.uplink.stop();
      await until("closed", () => bench.cloud.last?.closed);
      expect(bench.cloud.last?.packets).to.have.length(1); // no DISCONNECT before CONNACK is answered
      expect(bench.clock.timers).to.equal(0);

      bench.uplink.start();
      await until("CONNECT arrived", () => bench.cloud.connections.length === 2);
      bench.clock.advance(15_000);
      expect(bench.uplink.state().problem).to.match(
        /^no answer from mqtt:.* within 15 s; the port accepts and says nothing/,
      );
      expect(bench.uplink.state().link).to.equal("backoff");
      await bench.uplink.stop();
      await bench.uplink.stop();
      expect(bench.clock.timers).to.equal(0);
      expect(bench.cloud.connections).to.have.length(2);
    });
  });
}

describe("uplink/link", () => {
  it("says what a 3.1.1-only cloud answers to MQTT 5, and what a DISCONNECT says", async () => {
    const bench = await Bench.open({}, { connect: (connection) => connection.sendRaw(Uint8Array.of(0x20, 2, 0, 1)) });
    bench.uplink.start();
    await bench.untilDown();
    expect(bench.uplink.state().problem).to.equal(
      "the cloud refused the connection: it does not speak MQTT 5; try version: 4",
    );
    bench.cloud.script = {};
    bench.retry();
    await bench.untilUp();
    bench.cloud.last?.send({ cmd: "disconnect", reasonCode: 0x8e, properties: { reasonString: "a\nb\u001b" } });
    await bench.untilDown();
    expect(bench.uplink.state().problem).to.equal(
      "the cloud disconnected us: another client connected with the same clientId (a?b?); give each gateway a clientId of its own",
    );
    expect(announced(bench).at(-1)?.problem).to.equal(bench.uplink.state().problem);
  });

  it("tells an MQTT 5 cloud the reason code when it breaks the protocol: a topic alias that was never allowed", async () => {
    const bench = await Bench.up({ receive: [{ topic: "a", to: "b", qos: 1, expiryMs: undefined }] });
    bench.cloud.last?.publish("a", "x", { properties: { topicAlias: 1 } });
    await bench.untilDown();
    await until("DISCONNECT", () => bench.cloud.last?.seen("disconnect").length === 1);
    expect(bench.cloud.last?.seen("disconnect")[0]?.reasonCode).to.equal(0x94);
    expect(bench.publisher.commands).to.deep.equal([]);
  });

  it("takes the cloud's keep alive instead of its own [MQTT-3.2.2-21]", async () => {
    const bench = await Bench.up({}, { connect: (c) => c.connack({ properties: { serverKeepAlive: 4 } }) });
    bench.clock.advance(2500);
    await until("a ping", () => bench.cloud.last?.seen("pingreq").length === 1);
  });

  for (const serverKeepAlive of [0, 3600])
    it(`pings as often as it would itself when the cloud says ${serverKeepAlive} s: a dead link is still noticed`, async () => {
      const connect = (c: CloudConnection): void => c.connack({ properties: { serverKeepAlive } });
      const bench = await Bench.up({ keepAliveMs: 10_000 }, { connect, ping() {} });
      bench.clock.advance(5500);
      await until("a ping", () => bench.cloud.last?.seen("pingreq").length === 1);
      bench.passUntilDown(6000);
      expect(bench.uplink.state().problem).to.include("PINGRESP");
    });

  it("leaves a cloud that takes no packet of any use, and keeps its messages", async () => {
    const bench = await Bench.open({}, { connect: (c) => c.connack({ properties: { maximumPacketSize: 63 } }) });
    bench.uplink.start();
    await until("the end", () => bench.uplink.state().link === "backoff");
    expect(bench.uplink.state().problem).to.include("Maximum Packet Size of 63");
  });

  it("leaves a cloud that drips a packet, not one that sends it slowly", async () => {
    const bench = await Bench.up({ keepAliveMs: 10_000 }, { ping() {} });
    const cloud = bench.cloud.last!;
    const bytes = Buffer.alloc(4000, "x");
    Buffer.from([0x30, 0x80, 0x80, 0x02, 0, 1, 0x61, 0]).copy(bytes);
    let sent = 0;
    const send = async (count: number): Promise<void> => {
      cloud.sendRaw(bytes.subarray(sent, sent + count));
      sent += count;
      // No sign tells when it has been read: the time to arrive, then turns of the loop in which it is, though this process may have had none meanwhile.
      await new Promise((resolve) => setTimeout(resolve, 20));
      for (let turns = 0; turns < 3; turns += 1) await new Promise((resolve) => setImmediate(resolve));
    };
    await send(8);
    for (let seconds = 0; seconds < 8; seconds += 1) {
      bench.clock.advance(1000);
      await send(300);
    }
    expect(bench.uplink.state().link).to.equal("up");
    for (let seconds = 0; seconds < 8 && bench.uplink.state().link === "up"; seconds += 1) {
      bench.clock.advance(1000);
      await send(10);
    }
    expect(bench.uplink.state().link).to.equal("backoff");
    expect(bench.uplink.state().problem).to.include("drips");
  });

  it("does not take a busy but slow link for a dead one", async () => {
    const bench = await Bench.up({ keepAliveMs: 20_000 }, { ping() {}, publish() {} });
    bench.clock.advance(10_000);
    await until("a ping", () => bench.cloud.last?.seen("pingreq").length === 1);
    for (let n = 0; n < 4; n += 1) {
      bench.clock.advance(6000);
      await bench.quiet(); // no PINGRESP, but other signs of life
    }
    expect(bench.uplink.state().link).to.equal("up");
    bench.passUntilDown(20_000);
  });

  it("tries its urls in order, and begins with the first again after a link that stood, whatever the wall clock says", async () => {
    const bench = await Bench.open();
    const nobody = "mqtt://127.0.0.1:1";
    const uplink = bench.another(uplinkOptions({ urls: [bench.cloud.url, nobody], keepAliveMs: 0 }));
    const link = (state: string): Promise<unknown> => until(state, () => uplink.state().link === state);
    uplink.start();
    await link("up");
    bench.clock.wallJumpMs = 1e10; // NTP: not a link that stood a while
    bench.cloud.last?.close();
    await link("backoff");
    bench.retry(uplink);
    await link("backoff");
    expect(uplink.state().problem).to.match(/ECONNREFUSED/); // the second one's turn
    bench.retry(uplink);
    await link("up");
    bench.clock.advance(61_000);
    bench.cloud.last?.close();
    await link("backoff");
    expect(bench.clock.nextMs).to.equal(1000); // the pauses begin anew
    bench.retry(uplink);
    await link("up");
    expect(bench.cloud.connections).to.have.length(3);
    await uplink.stop();
  });

  it("does not spin when the cloud accepts and closes each time", async () => {
    const bench = await Bench.open(
      {},
      {
        connect(connection) {
          connection.connack();
          connection.close();
        },
      },
    );
    bench.uplink.start();
    const pauses: number[] = [];
    for (let n = 1; n <= 10; n += 1) {
      await until("down", () => bench.cloud.connections.length === n && bench.uplink.state().link === "backoff");
      pauses.push(bench.clock.nextMs);
      bench.retry();
    }
    expect(Math.min(...pauses)).to.be.at.least(1000);
    expect(Math.max(...pauses.slice(5))).to.be.above(2000);
  });

  it("survives a url's TLS files that are none, and says so", async () => {
    const bench = await Bench.open({ urls: ["mqtts://127.0.0.1:1"], tls: { ca: undefined, cert: "no", key: "no" } });
    bench.uplink.start();
    expect(bench.uplink.state().link).to.equal("backoff");
    expect(bench.uplink.state().problem).to.match(/^cannot connect to mqtts:\/\/127.0.0.1:1: .*PEM/);
    expect(bench.clock.timers).to.equal(1);
  });

  it("closes hard when the peer reads nothing more", async () => {
    let deaf: Socket | undefined;
    const server = createServer((socket) => {
      deaf = socket;
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.pause();
        socket.write(Uint8Array.of(0x20, 3, 0, 0, 0));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const bench = await Bench.open({ urls: [`mqtt://127.0.0.1:${port}`] });
    bench.uplink.start();
    await bench.untilUp();
    const stopped = bench.uplink.stop();
    bench.clock.advance(500);
    await stopped;
    expect(bench.clock.timers).to.equal(0);
    deaf?.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
});

describe("uplink/link over TLS", () => {
  let folder = "";
  before(function () {
    if (spawnSync("openssl", ["version"]).status !== 0) {
      process.stdout.write("      skipped: openssl not found: apt-get install openssl\n");
      this.skip();
    }
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    const make = (...args: string[]): unknown => execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    make(
      "req",
      "-x509",
      ...key,
      "-subj",
      "/CN=test cloud",
      "-addext",
      "subjectAltName=IP:127.0.0.1",
      "-keyout",
      "key.pem",
      "-out",
      "cert.pem",
    );
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });
  const file = (name: string): Buffer => readFileSync(join(folder, name));

  it("trusts the CA it was given, and nobody else", async () => {
    const tls = { key: file("key.pem"), cert: file("cert.pem") };
    const bench = await Bench.open({ tls: { ca: file("cert.pem") } }, {}, tls);
    bench.queue.add("over tls");
    bench.uplink.start();
    await bench.untilSettled(1);
    expect(bench.cloud.payloads).to.deep.equal(["over tls"]);

    const stranger = await Bench.open({}, {}, tls);
    stranger.uplink.start();
    await stranger.untilDown();
    expect(stranger.uplink.state().problem).to.match(/self[- ]signed/);
    expect(stranger.cloud.payloads).to.deep.equal([]);
  });
});
