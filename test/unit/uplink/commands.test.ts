import { expect } from "chai";
import type { Message } from "../../../src/base/message.ts";
import { createForwarding } from "../../../src/uplink/forwarding.ts";
import type { ReceiveRule } from "../../../src/uplink/options.ts";
import type { CloudConnection } from "../../helpers/fakeCloud.ts";
import { memoryStore } from "../../helpers/memoryUplink.ts";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches, uplinkOptions } from "./bench.ts";

afterEach(closeBenches);

const rule = (more: Partial<ReceiveRule> = {}): ReceiveRule => ({
  topic: "gw/{gateway}/cmd/#",
  to: "cmd/{rest}",
  qos: 1,
  expiryMs: undefined,
  ...more,
});

const pubacks = (bench: Bench): unknown[] =>
  bench.cloud.last?.seen("puback").map(({ messageId, reasonCode }) => [messageId, reasonCode ?? 0]) ?? [];

for (const version of [4, 5] as const) {
  describe(`uplink/commands, MQTT ${version === 4 ? "3.1.1" : "5"}`, () => {
    const open = (rules: ReceiveRule[] = [rule()]): Promise<Bench> => Bench.up({ version, receive: rules });
    const one = { qos: 1, messageId: 11 };

    it("subscribes with the gateway's id filled in", async () => {
      const bench = await open([rule(), rule({ topic: "all/+", qos: 0 }), rule({ topic: "$share/g/s/#" })]);
      await until("SUBSCRIBE", () => bench.cloud.last?.seen("subscribe").length === 1);
      const seen = bench.cloud.last?.seen("subscribe")[0];
      expect(seen?.messageId).to.equal(65_535);
      const five = { rap: false, rh: 1 };
      expect(seen?.subscriptions?.map((subscription) => ({ ...subscription }))).to.deep.equal([
        { topic: "gw/g1/cmd/#", qos: 1, ...(version === 5 ? { nl: true, ...five } : {}) },
        { topic: "all/+", qos: 0, ...(version === 5 ? { nl: true, ...five } : {}) },
        { topic: "$share/g/s/#", qos: 1, ...(version === 5 ? { nl: false, ...five } : {}) },
      ]);
    });

    it("publishes under the local topic, as an event that expires, and answers once it is durable", async () => {
      const bench = await open([rule({ expiryMs: 60_000 })]);
      bench.publisher.result = { accepted: true, group: 5 };
      bench.cloud.last?.publish("gw/g1/cmd/pump/on", "now", { ...one, retain: true });
      await until("published", () => bench.publisher.commands.length === 1);
      const { payload, ...command } = bench.publisher.commands[0] as Message;
      expect(Buffer.from(payload).toString()).to.equal("now");
      expect(command).to.deep.equal({
        topic: "cmd/pump/on",
        qos: 1,
        retain: false,
        properties: { messageExpirySeconds: 60 },
        source: "uplink:cloud",
      });
      bench.publisher.settle(4);
      bench.queue.add("a round trip");
      await bench.untilSettled(1);
      expect(pubacks(bench)).to.deep.equal([]);
      bench.publisher.settle(5);
      await until("PUBACK", () => pubacks(bench).length === 1);
      expect(pubacks(bench)).to.deep.equal([[11, 0]]);
    });

    it("answers in the order of arrival, though a later one is ready first [MQTT-4.6.0-2]", async () => {
      const bench = await open();
      bench.publisher.result = { accepted: true, group: 1 };
      bench.cloud.last?.publish("gw/g1/cmd/a", "1", one);
      await until("published", () => bench.publisher.commands.length === 1);
      bench.publisher.result = { accepted: true, group: 0 };
      bench.cloud.last?.publish("gw/g1/cmd/a", "2", { ...one, messageId: 12 });
      bench.cloud.last?.publish("no/rule", "3", { ...one, messageId: 13 });
      await until("published", () => bench.publisher.commands.length === 2);
      bench.queue.add("a round trip");
      await bench.untilSettled(1);
      expect(pubacks(bench)).to.deep.equal([]);
      bench.publisher.settle(1);
      await until("all answered", () => pubacks(bench).length === 3);
      expect(pubacks(bench)).to.deep.equal([
        [11, 0],
        [12, 0],
        [13, 0],
      ]);
      expect(bench.metric("tidegate_uplink_commands_ignored_total")).to.equal(1);
    });

    it(
      version === 5 ? "refuses with 0x97 what it cannot store" : "leaves unanswered what it cannot store",
      async () => {
        const bench = await Bench.up({ version, receive: [rule()], keepAliveMs: 0 });
        bench.publisher.result = { accepted: false, reason: "full" };
        bench.cloud.last?.publish("gw/g1/cmd/a", "1", one);
        await until("tried", () => bench.publisher.commands.length === 1);
        bench.publisher.result = { accepted: true, group: 3 };
        bench.cloud.last?.publish("gw/g1/cmd/a", "2", { ...one, messageId: 12 });
        await until("tried", () => bench.publisher.commands.length === 2);
        bench.publisher.settle(3, false); // the disk failed
        bench.publisher.result = { accepted: true, group: 0 };
        bench.cloud.last?.publish("gw/g1/cmd/a", "3", { ...one, messageId: 13 });
        await until("answered", () => pubacks(bench).length === (version === 5 ? 3 : 1));
        expect(pubacks(bench)).to.deep.equal(
          version === 5
            ? [
                [11, 0x97],
                [12, 0x97],
                [13, 0],
              ]
            : [[13, 0]],
        );
        expect(bench.metric("tidegate_uplink_commands_refused_total")).to.equal(2);
        bench.passMs(61_000);
        // A 3.1.1 cloud sends it again on another connection only.
        if (version === 4) await bench.untilDown();
        expect(bench.uplink.state().problem).to.equal(
          version === 5
            ? undefined
            : "commands could not be stored: reconnecting, so that the cloud sends them again; see the disk in tidegate status",
        );
      },
    );

    it("answers nothing of a lost connection on the next one", async () => {
      const bench = await open();
      bench.publisher.result = { accepted: true, group: 1 };
      bench.cloud.last?.publish("gw/g1/cmd/a", "1", one);
      await until("published", () => bench.publisher.commands.length === 1);
      await bench.reconnect();
      bench.publisher.settle(1);
      bench.publisher.result = { accepted: true, group: 0 };
      bench.cloud.last?.publish("gw/g1/cmd/a", "2", { ...one, messageId: 12 });
      await until("PUBACK", () => pubacks(bench).length === 1);
      expect(pubacks(bench)).to.deep.equal([[12, 0]]);
    });

    it("reads no faster than the disk takes, and loses nothing of a flood", async () => {
      const bench = await open();
      bench.publisher.result = { accepted: true, group: 1 };
      const flood = 100_000;
      for (let n = 0; n < flood; n += 1) bench.cloud.last?.publish("gw/g1/cmd/a", `${n}`.padStart(40));
      await until("some arrived", () => bench.publisher.commands.length >= 200);
      bench.passMs(120_000); // an unread PINGRESP is no dead link
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(bench.publisher.commands.length).to.be.below(5000); // one chunk of the socket beyond the limit
      expect(bench.uplink.state().link).to.equal("up");
      bench.publisher.result = { accepted: true, group: 0 };
      bench.publisher.settle(1);
      await until("all arrived", () => bench.publisher.commands.length === flood);
    });

    it("says when the cloud refuses a subscription", async () => {
      const subscribe = (c: CloudConnection, { messageId }: { messageId?: number }): void =>
        c.send({ cmd: "suback", messageId, granted: [version === 5 ? 0x87 : 0x80] });
      const bench = await Bench.up({ version, receive: [rule()] }, { subscribe });
      await until("said", () => bench.uplink.state().problem === "the cloud refused 1 of our subscriptions");
      expect(bench.uplink.state().link).to.equal("up");
    });

    it("subscribes again where that repeats no retained command", async () => {
      const bench = await Bench.up(
        { version, receive: [rule()] },
        { connect: (c) => c.connack({ sessionPresent: true }) },
      );
      await until("SUBSCRIBE", () => bench.cloud.last?.seen("subscribe").length === 1);
      await bench.quiet();
      await bench.reconnect();
      await bench.quiet();
      expect(bench.cloud.last?.seen("subscribe")).to.have.length(version === 5 ? 1 : 0);
      bench.cloud.script = {}; // the session is gone
      await bench.reconnect();
      await bench.quiet();
      expect(bench.cloud.last?.seen("subscribe")).to.have.length(1);
    });
  });
}

describe("uplink/commands", () => {
  it("leaves a cloud that sends more than our Receive Maximum", async () => {
    const bench = await Bench.up({ receive: [rule()] });
    bench.publisher.result = { accepted: true, group: 1 };
    for (let n = 1; n <= 101; n += 1) bench.cloud.last?.publish("gw/g1/cmd/a", "x", { qos: 1, messageId: n });
    await until("DISCONNECT", () => bench.cloud.last?.seen("disconnect")[0]?.reasonCode === 0x93);
    expect(bench.publisher.commands).to.have.length(100);
  });

  it("keeps the properties of a command, in memory of its own", async () => {
    const bench = await Bench.up({ receive: [rule({ expiryMs: 60_000 })] });
    const properties = {
      messageExpiryInterval: 7,
      correlationData: Buffer.from("c1"),
      responseTopic: "r",
      userProperties: { a: "b" },
    };
    bench.cloud.last?.publish("gw/g1/cmd/a", "x", { properties });
    await until("published", () => bench.publisher.commands.length === 1);
    const seen = bench.publisher.commands[0]?.properties;
    expect(seen).to.deep.include({ messageExpirySeconds: 7, responseTopic: "r", userProperties: [["a", "b"]] });
    expect(Buffer.from(seen?.correlationData ?? []).toString()).to.equal("c1");
    expect(seen?.correlationData?.buffer.byteLength).to.equal(2); // no view of the socket's buffer
  });
});

describe("uplink/forwarding, live and back", () => {
  const forward = (topic: string, qos: 0 | 1) => ({ topic, to: "up/{topic}", qos, priority: 4, ttlMs: 5000 });
  const live = (bench: Bench, message: Partial<Message> = {}): void => {
    const store = memoryStore(bench.queue, bench.clock, bench.rules);
    const forwarding = createForwarding(store, [bench.uplink]);
    const full = {
      topic: "plant/a",
      payload: Buffer.from("x"),
      qos: 0 as const,
      retain: false,
      source: "test",
      ...message,
    };
    for (const taker of forwarding.forwardsFor(full.topic)) if (taker.kind === "live") taker.send(full);
  };
  const dropped = (bench: Bench, reason: string): number =>
    bench.metric("tidegate_uplink_live_dropped_total", `reason="${reason}"`);

  it("answers with the first rule that matches: live for QoS 0, else stored", async () => {
    const bench = await Bench.open({ forward: [forward("plant/#", 1), forward("#", 0)] });
    const store = memoryStore(bench.queue, bench.clock, bench.rules);
    const { forwardsFor } = createForwarding(store, [bench.uplink]);
    const stored = { kind: "stored", uplink: "cloud", lane: 4, rule: 2, ttlMs: 5000, whenFull: "drop-oldest" };
    expect(forwardsFor("plant/a")).to.deep.equal([stored]);
    expect(forwardsFor("other").map(({ kind }) => kind)).to.deep.equal(["live"]);
    expect(forwardsFor("$SYS/x")).to.deep.equal([]);
    expect(bench.rules.get(2)).to.equal('{"filter":"plant/#","to":"up/{topic}","qos":1}');
  });

  it("sends QoS 0 rules while up, dressed as the others but for the number they do not have, else counts them", async () => {
    const bench = await Bench.open({ forward: [forward("#", 0)], meta: ["gw", "epoch", "seq", "pri", "late"] });
    live(bench);
    bench.uplink.start();
    live(bench);
    await bench.untilUp();
    expect(dropped(bench, "down")).to.equal(2);
    live(bench);
    await bench.untilPublished(1);
    const packet = bench.cloud.last?.seen("publish")[0];
    expect(packet).to.include({ topic: "up/plant/a", qos: 0 });
    expect({ ...(packet?.properties?.["userProperties"] as object) }).to.deep.equal({ gw: "g1", epoch: "7", pri: "4" });
    expect(bench.uplink.state()).to.include({ sent: 1, inflight: 0 });
  });

  it("keeps the cloud's packet size and sends nothing impossible", async () => {
    const bench = await Bench.up(
      { forward: [forward("#", 0)] },
      { connect: (c) => c.connack({ properties: { maximumPacketSize: 100, retainAvailable: false } }) },
    );
    live(bench, { payload: Buffer.alloc(200) });
    live(bench, { topic: "t".repeat(65_534) });
    live(bench, { retain: true });
    await bench.untilPublished(1);
    expect(bench.cloud.last?.seen("publish")[0]?.retain).to.equal(false);
    expect([dropped(bench, "too-large"), dropped(bench, "refused")]).to.deep.equal([1, 1]);
  });

  it("drops, counted, what a full socket cannot take, and holds no more of it than its limit", async () => {
    const bench = await Bench.up({ forward: [forward("#", 0)], keepAliveMs: 0 });
    bench.cloud.last?.pause();
    let sent = 0;
    await until("full", async () => {
      for (; sent < 100_000 && dropped(bench, "full") === 0; sent += 1)
        live(bench, { payload: Buffer.alloc(128 * 1024) });
      return dropped(bench, "full") > 0;
    });
    bench.cloud.last?.resume();
    await bench.untilPublished(sent - 1);
    expect(bench.cloud.payloads).to.have.length(sent - 1);
  });

  it("sends nothing back to the cloud that it came from, live or stored", async () => {
    const bench = await Bench.up({ forward: [forward("#", 0)] });
    live(bench, { source: "uplink:cloud" });
    live(bench, { source: "uplink:other", payload: Buffer.from("theirs") });
    bench.queue.add("ours", { source: "uplink:cloud" });
    await bench.untilSettled(1);
    await bench.untilPublished(1);
    expect(bench.cloud.payloads).to.deep.equal(["theirs"]);
    expect(bench.queue.settled).to.deep.equal([{ seq: 1, dropped: "refused" }]);
  });

  it("accepts inflight beyond what identifiers can count", () => {
    return Bench.open({ inflight: 65_535 }).then(({ uplink }) => {
      expect(uplink.options.inflight).to.equal(65_534);
      expect(uplinkOptions().inflight).to.equal(1000);
    });
  });
});
