import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect as connectSocket, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { connectAsync } from "mqtt";
import { generate } from "mqtt-packet";
import { systemClock } from "../../../src/base/clock.ts";
import type { TidegateError } from "../../../src/base/errors.ts";
import { silentLog } from "../../../src/base/log.ts";
import { Meter } from "../../../src/base/meter.ts";
import { createBroker } from "../../../src/broker/broker.ts";
import { type Broker, limitDefaults } from "../../../src/broker/options.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { until } from "../../helpers/wait.ts";

describe("listeners", () => {
  let broker: Broker;
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    const limits = { ...limitDefaults, maxConnectionsPerAddress: 2 };
    const routing = { routesFor: () => [] };
    const forwarding = { forwardsFor: () => [] };
    const deps = {
      store: new MemoryStore(),
      clock: systemClock,
      log: silentLog,
      meter: new Meter(),
      routing,
      forwarding,
    };
    broker = createBroker({ anonymous: true, limits, version: "0" }, deps);
  });
  afterEach(async () => {
    await broker.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("a listener that opens while the broker closes is not left open", async () => {
    const url = `unix://${join(folder, "mqtt.sock")}`;
    const opening = broker.listen({ url }).then(
      () => "open",
      (error: TidegateError) => error.code,
    );
    await broker.ready;
    await Promise.resolve(); // `listen` has looked whether the broker is closed, and is about to bind
    await broker.close();
    expect(await opening).to.equal("TG_LISTEN");
    expect(existsSync(join(folder, "mqtt.sock"))).to.equal(false);
  });

  for (const protocolVersion of [4, 5] as const) {
    it(`a client of MQTT ${protocolVersion} publishes and subscribes over TCP at each QoS`, async () => {
      const { url } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
      const client = await connectAsync(url, { protocolVersion, reconnectPeriod: 0 });
      const got: string[] = [];
      client.on("message", (_topic, payload) => got.push(payload.toString()));
      await client.subscribeAsync("t", { qos: 2 });
      for (const qos of [0, 1, 2] as const) await client.publishAsync("t", `q${qos}`, { qos });
      await until("three messages", () => got.length === 3);
      expect(got).to.deep.equal(["q0", "q1", "q2"]);
      await client.endAsync();
      await until("it is gone", () => broker.stats().connections === 0);
    });
  }

  it("a unix socket, also where a killed process left its file, but not where somebody answers", async () => {
    const path = join(folder, "mqtt.sock");
    const program = `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", program]);
    expect(existsSync(path)).to.equal(true);
    await broker.listen({ url: `unix://${path}` });
    const error = await broker.listen({ url: `unix://${path}` }).catch((caught: TidegateError) => caught);
    expect(error).to.include({ code: "TG_LISTEN" });
    const socket = connectSocket(path);
    socket.write(
      generate({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clientId: "u", clean: true, keepalive: 0 }),
    );
    await until("connected", () => broker.stats().connections === 1);
    socket.destroy();
  });

  it("says what is wrong with an address", async () => {
    const busy = createServer();
    await new Promise<void>((resolve) => busy.listen(0, "127.0.0.1", resolve));
    const { port } = busy.address() as { port: number };
    const problems: Array<readonly [url: string, code: string, words: RegExp]> = [
      [`mqtt://127.0.0.1:${port}`, "TG_LISTEN", /in use/],
      ["mqtt://192.0.2.1:0", "TG_LISTEN", /does not have the address/],
      ["mqtts://127.0.0.1:0", "TG_CONFIG", /tls/],
      ["http://127.0.0.1:0", "TG_CONFIG", /a listener is/],
    ];
    for (const [url, code, words] of problems) {
      const error = await broker.listen({ url }).then(
        () => undefined,
        (caught: TidegateError) => caught,
      );
      expect(error, url).to.include({ code });
      expect(error?.message).to.match(words);
    }
    await new Promise((resolve) => busy.close(resolve));
  });

  it("refuses what is above maxConnectionsPerAddress, and takes it once there is room", async () => {
    const { port } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
    const open = () => {
      const socket = connectSocket(port, "127.0.0.1");
      socket.on("error", () => {});
      return socket;
    };
    const kept = [open(), open()];
    await until("two are in", () => kept.every((socket) => socket.readyState === "open"));
    const third = open();
    await until("the third is out", () => third.destroyed);
    kept[0]?.destroy();
    await until("a client gets in", async () => {
      const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 }).catch(() => undefined);
      await client?.endAsync();
      return client !== undefined;
    });
    kept[1]?.destroy();
  });
});
