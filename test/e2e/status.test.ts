import { expect } from "chai";
import mqtt, { type MqttClient } from "mqtt";
import type { UplinkState } from "../../src/base/uplinkState.ts";
import { FakeCloud } from "../helpers/fakeCloud.ts";
import { GatewayProcess, runProgram } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

describe("how much waits, and when it is through, with the real binary", function () {
  this.timeout(180_000);
  let gateway: GatewayProcess;
  let cloud: FakeCloud | undefined;
  let client: MqttClient;
  let ports: number[] = [];

  beforeEach(async () => {
    ports = await freePorts(3);
    gateway = await GatewayProcess.create(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${ports[0]}" } ] }
http: { listen: "http://127.0.0.1:${ports[1]}" }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${ports[2]}
    backoff: { min: 20ms, max: 100ms }
    queue: { maxBytes: 32 KiB }
    drain: { maxPerSecond: 10 }
    forward: [ { topic: "alarm/#", priority: 9 }, { topic: "plant/#" } ]
`);
    await gateway.start();
    client = mqtt.connect(`mqtt://127.0.0.1:${ports[0]}`, { protocolVersion: 5 });
  });
  afterEach(async () => {
    await client.endAsync(true);
    await gateway.remove();
    await cloud?.close();
    cloud = undefined;
  });

  const api = async <T>(path: string): Promise<T> =>
    (await (await fetch(`http://127.0.0.1:${ports[1]}/api/v1/${path}`)).json()) as T;
  const state = (): Promise<UplinkState> => api<UplinkState>("uplinks/cloud");
  const run = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runProgram([...args, "-c", gateway.configFile]);
    expect(code, stderr).to.equal(0);
    return stdout;
  };
  const publish = async (topic: string, from: number, to: number): Promise<void> => {
    for (let n = from; n < to; n += 1) await client.publishAsync(`${topic}/${n}`, "x".repeat(200), { qos: 1 });
  };

  it("an outage, a queue that overflows, a paced drain", async () => {
    await publish("alarm", 0, 20);
    await publish("plant", 0, 300);
    const down = await until("the rate is measured, and the queue was cut", async () => {
      const now = await state();
      return (now.rates.inPerSecond1m ?? 0) > 0 && (now.queue.dropped["full"] ?? 0) > 0 && now;
    });
    // Every message is there or counted; what went is the lowest priority's oldest.
    const { full = 0 } = down.queue.dropped;
    expect(down.queue.messages + full).to.equal(320);
    expect(down.queue.taken).to.equal(320);
    expect(down.queue.bytes).to.be.at.most(32 * 1024);
    expect(down.queue.droppedByRule).to.deep.equal({ "plant/#": { full } });
    expect(down.eta).to.deep.equal({ state: "down", seconds: null });
    expect(down.room.bytes).to.equal(32 * 1024 - down.queue.bytes);
    expect(down.room.seconds).to.be.a("number");
    const { dropped } = await api<{ dropped: Array<Record<string, unknown>> }>("uplinks/cloud/dropped");
    expect(dropped).to.have.length(Math.min(100, full));
    expect(dropped[0]).to.include({
      topic: `plant/${full - 1}`,
      messages: 1,
      reason: "full",
      rule: "plant/#",
      uplink: "cloud",
    });
    const listed = (await run("queue", "dropped", "cloud")).trim().split("\n");
    expect(listed[0]).to.match(/^WHEN +REASON +RULE +MESSAGES +TOPIC$/);
    expect(listed[1]).to.match(new RegExp(`^20.*Z  full +plant/# +1 +plant/${full - 1}$`));
    const screen = await run("status");
    expect(screen).to.match(/cloud down since .*; \d+ attempts?, /);
    expect(screen).to.match(
      new RegExp(`backlog ${down.queue.messages} messages, .* KiB, oldest .*; waits for the link`),
    );
    expect(screen).to.match(/room .*, without the cloud for \d+ /);
    expect(screen).to.include(`left unsent: full ${full} (tidegate queue dropped cloud)`);
    expect(screen).to.match(/written .* in all, in \d+ s/);
    expect(screen.split("\n").length).to.be.below(24); // one screen

    cloud = await FakeCloud.open(5, {}, undefined, ports[2]);
    const draining = await until("it drains, measured over some seconds", async () => {
      const now = await state();
      // A mean since the link is up: of the first second alone it may be anything.
      const { outPerSecond1m: out } = now.rates;
      return now.eta.state === "draining" && out !== null && out >= 8 && out < 14 && now;
    });
    expect(draining.lastError?.code).to.equal("connection-refused");
    expect(await run("status")).to.match(/through in \d+ s/);
    const metrics = await (await fetch(`http://127.0.0.1:${ports[1]}/metrics`)).text();
    expect(metrics).to.match(/^tidegate_uplink_eta_seconds\{uplink="cloud"\} \d+$/m);
    expect(metrics).to.match(
      new RegExp(`^tidegate_uplink_dropped_total\\{reason="full",rule="plant/#",uplink="cloud"\\} ${full}$`, "m"),
    );

    // It does what it says: the ETA of now against what it takes.
    const { seconds } = (await state()).eta;
    const startedMs = performance.now();
    await until("drained", async () => (await state()).eta.state === "drained", 60_000);
    const took = (performance.now() - startedMs) / 1000;
    expect(took).to.be.within((seconds ?? 0) * 0.5 - 1, (seconds ?? 0) * 1.5 + 1);
    expect(cloud.payloads).to.have.length(down.queue.messages);
  });

  it("what comes in faster than it goes out is never through, and that is said", async () => {
    cloud = await FakeCloud.open(5, {}, undefined, ports[2]);
    await until("up", async () => (await state()).link === "up");
    let stop = false;
    const feeding = (async () => {
      // Some at once: a disk that is slow to sync takes more than ten a second all the same.
      for (let n = 0; !stop; n += 100)
        await Promise.all(Array.from({ length: 10 }, (_, at) => publish("plant", n + at * 10, n + at * 10 + 10)));
    })();
    await until("never", async () => (await state()).eta.state === "never", 60_000);
    expect(await run("status")).to.include("never through at this rate");
    stop = true;
    await feeding;
  });
});
