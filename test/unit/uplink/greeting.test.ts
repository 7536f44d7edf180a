import { expect } from "chai";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches } from "./bench.ts";

afterEach(closeBenches);

const receive = (topic: string) => ({ topic, to: "cmd/{rest}", qos: 1 as const, expiryMs: undefined });
const topicAliasOf = ({ properties }: { properties?: Readonly<Record<string, unknown>> }): unknown =>
  properties?.["topicAlias"];

describe("uplink: what CONNACK says", () => {
  it("subscribes to no wildcard and no share where the cloud says that it has none, and says so", async () => {
    const bench = await Bench.up(
      { receive: [receive("cmd/one"), receive("cmd/+"), receive("cmd/#"), receive("$share/g/cmd/two")] },
      {
        connect: (c) =>
          c.connack({ properties: { wildcardSubscriptionAvailable: false, sharedSubscriptionAvailable: false } }),
      },
    );
    await bench.quiet();
    const [subscribe] = bench.cloud.last?.seen("subscribe") ?? [];
    expect(subscribe?.subscriptions?.map(({ topic }) => topic)).to.deep.equal(["cmd/one"]);
    expect(bench.uplink.state()).to.include({ link: "up", problem: "the cloud refused 3 of our subscriptions" });
  });

  it("sends no SUBSCRIBE that is larger than the cloud takes [MQTT-3.2.2-15]", async () => {
    const bench = await Bench.up(
      { receive: [receive(`cmd/${"x".repeat(100)}`)] },
      { connect: (c) => c.connack({ properties: { maximumPacketSize: 64 } }) },
    );
    await bench.quiet();
    expect(bench.cloud.last?.seen("subscribe")).to.deep.equal([]);
    expect(bench.uplink.state()).to.include({ link: "up", problem: "the cloud refused 1 of our subscriptions" });
  });

  it("pings where the cloud wants none all the same, and says that it keeps our session for less", async () => {
    const properties = { serverKeepAlive: 0, sessionExpiryInterval: 30 };
    const bench = await Bench.up({ keepAliveMs: 4000 }, { connect: (c) => c.connack({ properties }) });
    bench.clock.advance(2500);
    await until("a ping", () => bench.cloud.last?.seen("pingreq").length === 1);
    const up = bench.lines.find(({ message }) => message === "the cloud is up");
    expect(up?.fields["sessionSeconds"]).to.equal(30);
  });

  it("leaves a cloud whose CONNACK is hostile, says why, and loses nothing", async () => {
    const bytes: Record<string, number[]> = {
      "receive maximum 0": [0x20, 6, 0, 0, 3, 0x21, 0, 0],
      "receive maximum twice": [0x20, 9, 0, 0, 6, 0x21, 0, 5, 0x21, 0, 5],
      "maximum packet size 0": [0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0],
      "maximum QoS 2": [0x20, 5, 0, 0, 2, 0x24, 2],
      "retain available 7": [0x20, 5, 0, 0, 2, 0x25, 7],
      "a property of PUBLISH": [0x20, 6, 0, 0, 3, 0x23, 0, 1],
      "a property that is none": [0x20, 5, 0, 0, 2, 0x7e, 0],
      "properties beyond its end": [0x20, 4, 0, 0, 9, 0x21],
      "a session, and a refusal": [0x20, 3, 1, 0x87, 0],
      "reserved flags": [0x20, 3, 2, 0, 0],
      "a code that is none": [0x20, 3, 0, 0x42, 0],
      "an authentication method": [0x20, 7, 0, 0, 4, 0x15, 0, 1, 0x61],
      "text that is no UTF-8": [0x20, 8, 0, 0, 5, 0x1f, 0, 2, 0xc3, 0x28],
      "five bytes of length": [0x20, 0xff, 0xff, 0xff, 0xff, 1],
    };
    const due = Object.values(bytes);
    let at = 0;
    const bench = await Bench.open(
      {},
      { connect: (c) => (at < due.length ? c.sendRaw(Uint8Array.from(due[at++]!)) : c.connack()) },
    );
    bench.queue.add("kept");
    bench.uplink.start();
    for (const [index, name] of Object.keys(bytes).entries()) {
      await until(name, () => bench.cloud.connections.length === index + 1 && bench.uplink.state().link === "backoff");
      expect(bench.uplink.state(), name).to.include({ reason: "protocol-error", attempts: index + 1 });
      bench.retry();
    }
    await bench.untilSettled(1);
    expect(bench.cloud.payloads).to.deep.equal(["kept"]);
    expect(bench.metric("tidegate_uplink_faults_total", 'reason="protocol-error"')).to.equal(due.length);
    expect(bench.lines.filter(({ level }) => level === "warn")).to.have.length(1); // one line a change, not one a retry
  });

  it("a DISCONNECT with another server: shown, and not followed", async () => {
    const bench = await Bench.up();
    bench.cloud.last?.send({ cmd: "disconnect", reasonCode: 0x9c, properties: { serverReference: "mqtt://evil:1" } });
    await bench.untilDown();
    expect(bench.uplink.state()).to.include({ reason: "use-another-server", url: bench.cloud.url });
    expect(bench.uplink.state().problem).to.include("mqtt://evil:1");
    expect(bench.clock.nextMs).to.equal(60_000); // only a person can mend it
    bench.retry();
    await bench.untilUp();
    expect(bench.cloud.connections).to.have.length(2);
  });

  it("topic aliases: as many as the cloud allows, live ones among them, anew on each connection, none on a retransmission", async () => {
    let answers = false;
    const bench = await Bench.up(
      { meta: [] },
      {
        connect: (c) => c.connack({ sessionPresent: true, properties: { topicAliasMaximum: 2 } }),
        publish: (c, { qos, messageId }) => answers && qos === 1 && c.puback(messageId),
      },
    );
    const seen = (): Array<[topic: string | undefined, alias: unknown, dup: boolean | undefined]> =>
      (bench.cloud.last?.seen("publish") ?? []).map((packet) => [packet.topic, topicAliasOf(packet), packet.dup]);
    for (const topic of ["plant/a", "plant/a", "plant/b", "plant/c"]) bench.queue.add("x", { topic });
    await bench.untilPublished(4);
    bench.uplink.sendLive(
      { topic: "plant/b", payload: Buffer.from("live"), qos: 0, retain: false, source: "test" },
      {
        filter: "plant/#",
        to: (await import("../../../src/base/template.ts")).parseTemplate("up/{rest}"),
        qos: 0,
        priority: 0,
      },
    );
    await bench.untilPublished(5);
    expect(seen()).to.deep.equal([
      ["up/a", 1, false],
      ["", 1, false],
      ["up/b", 2, false],
      ["up/c", undefined, false],
      ["", 2, false],
    ]);
    expect(bench.metric("tidegate_uplink_alias_saved_bytes_total")).to.equal(1 + 1 - 2 * 3);
    answers = true;
    await bench.reconnect();
    await bench.untilSettled(4);
    bench.queue.add("y", { topic: "plant/b" });
    await bench.untilSettled(5);
    expect(seen()).to.deep.equal([
      ...["up/a", "up/a", "up/b", "up/c"].map((topic) => [topic, undefined, true]),
      ["up/b", 1, false],
    ]);
  });

  it("says nothing of aliases to a cloud that allows none", async () => {
    const bench = await Bench.up();
    for (let n = 0; n < 3; n += 1) bench.queue.add("x");
    await bench.untilSettled(3);
    expect(bench.cloud.last?.seen("publish").map(({ topic }) => topic)).to.deep.equal(["up/a", "up/a", "up/a"]);
    expect(bench.metric("tidegate_uplink_alias_saved_bytes_total")).to.equal(0);
  });
});

describe("uplink: what is said of a link", () => {
  it("is down since it went down, whatever is tried; one line a change, and again after it stood", async () => {
    const refusing = { code: 0x86 };
    let refuses = true;
    const bench = await Bench.open({ keepAliveMs: 0 }, { connect: (c) => c.connack(refuses ? refusing : {}) });
    bench.uplink.start();
    const { sinceMs } = bench.uplink.state();
    const waits: number[] = [];
    for (let n = 1; n <= 4; n += 1) {
      await until("refused", () => bench.uplink.state().attempts === n);
      const { retryAtMs = 0 } = bench.uplink.state();
      expect(retryAtMs).to.equal(bench.clock.wallMs() + bench.clock.nextMs);
      waits.push(bench.clock.nextMs);
      expect(bench.uplink.state()).to.include({ sinceMs, reason: "bad-credentials" });
      bench.retry();
    }
    expect(waits[0]).to.equal(60_000); // slow, with full jitter
    expect(waits[1]).to.be.within(60_000, 120_000);
    expect(waits[3]).to.be.within(60_000, 480_000);
    const warnings = (): number => bench.lines.filter(({ message }) => /not reachable/.test(message)).length;
    expect(warnings()).to.equal(1);
    const ups = (): number => bench.lines.filter(({ message }) => message === "the cloud is up").length;
    expect(ups()).to.equal(0);
    await until("refused", () => bench.uplink.state().attempts === 5);
    refuses = false;
    bench.uplink.pause(false); // an operator who has mended it does not wait
    await bench.untilUp();
    expect(bench.uplink.state()).to.include({
      attempts: 0,
      reason: undefined,
      problem: undefined,
      retryAtMs: undefined,
    });
    expect(bench.uplink.state().lastError).to.include({ code: "bad-credentials", url: bench.cloud.url });
    expect(bench.uplink.state().sinceMs).to.be.above(sinceMs);
    bench.cloud.last?.close();
    await bench.untilDown();
    expect(warnings()).to.equal(2);
    bench.retry();
    await bench.untilUp();
    bench.cloud.last?.close();
    await bench.untilDown();
    expect(warnings()).to.equal(2); // it flaps: said once
    expect(ups()).to.equal(2);
    bench.retry();
    await bench.untilUp();
    bench.passMs(61_000);
    await bench.quiet();
    bench.cloud.last?.close();
    await bench.untilDown();
    expect(warnings()).to.equal(3); // it stood in between: that is news
    expect(ups()).to.equal(2);
    expect(bench.clock.timers).to.equal(1);
  });
});
