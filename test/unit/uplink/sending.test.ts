import { expect } from "chai";
import type { CloudConnection, SeenPacket } from "../../helpers/fakeCloud.ts";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches, uplinkOptions } from "./bench.ts";

afterEach(closeBenches);

const ids = (packets: readonly SeenPacket[] | undefined): Array<number | undefined> =>
  (packets ?? []).map(({ messageId }) => messageId);
const dups = (packets: readonly SeenPacket[] | undefined): unknown[] => (packets ?? []).map(({ dup }) => dup);
const silent = { publish() {} };

for (const version of [4, 5] as const) {
  describe(`uplink/sending, MQTT ${version === 4 ? "3.1.1" : "5"}`, () => {
    it("settles a message only after its PUBACK, each once, in whatever order they come", async () => {
      const bench = await Bench.up({ version }, silent);
      for (const payload of ["a", "b", "c"]) bench.queue.add(payload, { topic: "plant/x/y" });
      await bench.untilPublished(3);
      const packets = bench.cloud.last?.seen("publish") ?? [];
      expect(packets[0]).to.include({ topic: "up/x/y", qos: 1, dup: false, retain: false });
      await bench.quiet();
      expect(bench.queue.settled).to.deep.equal([]);
      expect(bench.uplink.state()).to.include({ sent: 3, acknowledged: 0, inflight: 3 });
      for (const at of [2, 0, 0, 1, 2]) bench.cloud.last?.puback(packets[at]?.messageId);
      await bench.untilSettled(3);
      await bench.quiet();
      expect(bench.queue.settled.map(({ seq }) => seq)).to.deep.equal([3, 1, 2]);
      expect(bench.queue.settledTwice).to.equal(0);
      expect(bench.metric("tidegate_uplink_stray_acks_total")).to.equal(2);
      expect(bench.uplink.state()).to.include({ acknowledged: 3, inflight: 0 });
    });

    it("has no more than inflight unacknowledged, and goes on with each PUBACK", async () => {
      const bench = await Bench.up({ version, inflight: 3 }, silent);
      for (let n = 0; n < 8; n += 1) bench.queue.add(String(n));
      await bench.untilPublished(3);
      await bench.quiet();
      expect(bench.cloud.payloads).to.have.length(3);
      for (let n = 0; n < 5; n += 1) {
        bench.cloud.last?.puback(bench.cloud.last.seen("publish")[n]?.messageId);
        await bench.untilPublished(4 + n);
        await bench.quiet();
        expect(bench.cloud.payloads).to.have.length(4 + n);
      }
      expect(bench.cloud.payloads.join("")).to.equal("01234567");
    });

    it("drains a thousand, in order, and more that come meanwhile", async () => {
      const bench = await Bench.open({ version, inflight: 50 });
      for (let n = 0; n < 1000; n += 1) bench.queue.add(String(n));
      bench.uplink.start();
      await bench.untilPublished(500);
      for (let n = 1000; n < 1200; n += 1) bench.queue.add(String(n));
      await bench.untilSettled(1200);
      expect(bench.cloud.payloads.map(Number)).to.deep.equal(Array.from({ length: 1200 }, (_, n) => n));
      expect(bench.queue.settledTwice).to.equal(0);
    });

    for (const sessionPresent of [true, false]) {
      it(`sends the unacknowledged again before new ones, session ${sessionPresent ? "present" : "gone"}`, async () => {
        const script = { ...silent, connect: (c: CloudConnection) => c.connack({ sessionPresent }) };
        const bench = await Bench.up({ version, inflight: 4 }, script);
        for (const payload of ["a", "b", "c", "d", "e", "f"]) bench.queue.add(payload);
        await bench.untilPublished(4);
        const first = bench.cloud.last?.seen("publish") ?? [];
        bench.cloud.last?.puback(first[1]?.messageId);
        await bench.untilSettled(1);
        await bench.untilPublished(5); // e took b's place
        const sent = ids(bench.cloud.last?.seen("publish"));
        await bench.reconnect();
        await bench.untilPublished(9);
        expect(bench.cloud.last?.payloads).to.deep.equal(["a", "c", "d", "e"]);
        expect(ids(bench.cloud.last?.seen("publish"))).to.deep.equal([sent[0], sent[2], sent[3], sent[4]]);
        expect(dups(bench.cloud.last?.seen("publish"))).to.deep.equal(Array(4).fill(sessionPresent)); // [MQTT-3.3.1-1]
        expect(bench.metric("tidegate_uplink_resent_total")).to.equal(4);
        for (const id of ids(bench.cloud.last?.seen("publish"))) bench.cloud.last?.puback(id);
        await bench.untilPublished(10);
        expect(bench.cloud.last?.payloads.at(-1)).to.equal("f");
        expect(bench.cloud.last?.seen("publish").at(-1)?.dup).to.equal(false);
        bench.cloud.last?.puback(bench.cloud.last?.seen("publish").at(-1)?.messageId);
        await bench.untilSettled(6);
        expect(bench.queue.settledTwice).to.equal(0);
      });
    }

    it("gives the unacknowledged back at stop, so that the next uplink of this queue sends them", async () => {
      const bench = await Bench.up({ version }, silent);
      for (const payload of ["a", "b"]) bench.queue.add(payload);
      await bench.untilPublished(2);
      await bench.uplink.stop();
      expect(bench.queue.handedOut).to.equal(0);
      bench.cloud.script = {};
      const next = bench.another(uplinkOptions({ version, urls: [bench.cloud.url] }));
      next.start();
      await bench.untilSettled(2);
      expect(bench.cloud.last?.payloads).to.deep.equal(["a", "b"]);
      expect(bench.queue.settledTwice).to.equal(0);
      await next.stop();
    });

    it("neither spins nor drops when the cloud falls over one message each time, and names it", async () => {
      const poison = (c: CloudConnection, packet: SeenPacket): void => {
        if (String(packet.payload) === "poison") c.close();
        else c.puback(packet.messageId);
      };
      const bench = await Bench.open({ version }, { publish: poison });
      bench.queue.add("poison");
      bench.queue.add("good");
      bench.uplink.start();
      for (let n = 1; n <= 4; n += 1) {
        await until(
          "dropped by the cloud",
          () => bench.cloud.connections.length === n && bench.uplink.state().link === "backoff",
        );
        expect(bench.clock.nextMs).to.be.at.least(1000);
        if (n < 4) bench.retry();
      }
      expect(bench.uplink.state().problem)
        .to.include("4 connections in a row")
        .and.include('seq 1, 6 bytes on "plant/a"');
      expect(bench.queue.settled).to.deep.equal([]);
      expect(bench.uplink.state().queue.messages).to.equal(2);
      bench.cloud.script = {}; // the cloud was mended
      bench.retry();
      await bench.untilSettled(2);
      expect(bench.uplink.state().problem).to.equal(undefined);
    });

    it("takes the highest priority first, as the queue has it, and what came in between goes between", async () => {
      const bench = await Bench.open({ version, inflight: 1 }, silent);
      bench.queue.add("low 1");
      bench.queue.add("low 2");
      bench.queue.add("high", { priority: 9 });
      bench.uplink.start();
      await bench.untilPublished(1);
      bench.queue.add("urgent", { priority: 9 });
      for (let n = 1; n <= 4; n += 1) {
        await bench.untilPublished(n);
        bench.cloud.last?.puback(bench.cloud.last.seen("publish")[n - 1]?.messageId);
      }
      await bench.untilSettled(4);
      expect(bench.cloud.payloads).to.deep.equal(["high", "urgent", "low 1", "low 2"]);
    });

    it("begins anew at each connection to share the link between what waited and what comes", async () => {
      const bench = await Bench.open({
        version,
        drain: { maxPerSecond: 0, maxBytesPerSecond: 0, liveShare: 0.2 },
      });
      bench.queue.add("late");
      const { head } = bench.queue;
      bench.uplink.start();
      await bench.untilPublished(1);
      bench.queue.add("fresh");
      await bench.untilPublished(2);
      await bench.reconnect();
      expect(bench.queue.shared).to.deep.equal([
        { head, liveShare: 0.2 },
        { head: bench.queue.head, liveShare: 0.2 },
      ]);
    });

    it("keeps drain.maxPerSecond, after a reconnect and a restart too", async () => {
      const bench = await Bench.up({ version, drain: { maxPerSecond: 10, maxBytesPerSecond: 0, liveShare: 0 } });
      for (let n = 0; n < 60; n += 1) bench.queue.add(String(n));
      await bench.untilPublished(10);
      await bench.quiet();
      expect(bench.cloud.payloads).to.have.length(10); // one second's worth at once
      bench.clock.advance(1000);
      await bench.untilPublished(11);
      for (let n = 0; n < 9; n += 1) {
        bench.clock.advance(100);
        await bench.quiet();
      }
      expect(bench.cloud.payloads.length).to.be.within(20, 30);
      await bench.reconnect();
      const before = bench.cloud.payloads.length;
      bench.clock.advance(1000);
      await bench.untilPublished(before + 1);
      await bench.uplink.stop(); // while it waits for its pace
      bench.uplink.start();
      await bench.untilUp();
      while (bench.queue.settled.length < 60) {
        bench.clock.advance(100);
        await bench.quiet();
      }
      expect(bench.queue.settledTwice).to.equal(0);
    });
  });
}

describe("uplink/sending, what MQTT 5 says more", () => {
  it("keeps the cloud's Receive Maximum, when acknowledgements come for what is not sent again yet, too", async () => {
    const properties = { receiveMaximum: 2 };
    const bench = await Bench.up({ inflight: 6 }, { ...silent, connect: (c) => c.connack({ sessionPresent: true }) });
    for (let n = 0; n < 10; n += 1) bench.queue.add(String(n));
    await bench.untilPublished(6);
    const sent = ids(bench.cloud.last?.seen("publish"));
    bench.cloud.script = { ...silent, connect: (c) => c.connack({ sessionPresent: true, properties }) };
    await bench.reconnect();
    await bench.untilPublished(8);
    await bench.quiet();
    expect(bench.cloud.last?.payloads).to.deep.equal(["0", "1"]);
    // Late answers of the session to what still waits to be sent again: they make no room on the wire.
    for (const id of sent.slice(3, 6)) bench.cloud.last?.puback(id);
    await bench.untilSettled(3);
    await bench.quiet();
    expect(bench.cloud.last?.payloads).to.deep.equal(["0", "1"]);
    bench.cloud.last?.puback(sent[0]);
    await bench.untilPublished(9);
    await bench.quiet();
    expect(bench.cloud.last?.payloads).to.deep.equal(["0", "1", "2"]);
  });

  it("leaves no retry timers of a lost link, and sends the refused one at once on the next", async () => {
    const bench = await Bench.up({ keepAliveMs: 0 }, { publish: (c, { messageId }) => c.puback(messageId, 0x80) });
    bench.queue.add("bad");
    await until("refused", () => bench.clock.timers === 1);
    await bench.reconnect();
    await bench.untilPublished(2);
    expect(bench.cloud.last?.seen("publish")[0]?.dup).to.equal(false);
    expect(bench.queue.settled).to.deep.equal([]);
  });

  it("gives up what is too large for the cloud or has expired, each under its name", async () => {
    const bench = await Bench.up(
      { maxPacketSize: 1000 },
      { connect: (c) => c.connack({ properties: { maximumPacketSize: 300 } }) },
    );
    await bench.uplink.stop();
    bench.queue.add("x".repeat(400));
    bench.queue.add("old", { properties: { messageExpirySeconds: 5 } });
    bench.queue.add("young", { properties: { messageExpirySeconds: 50 } });
    bench.queue.add("nowhere", { rule: 2 });
    bench.rules.set(2, JSON.stringify({ filter: "plant/#", to: "{5}", qos: 1 }));
    bench.clock.advance(10_000);
    bench.uplink.start();
    await bench.untilSettled(4);
    const why = Object.fromEntries(bench.queue.settled.map(({ seq, dropped }) => [seq, dropped]));
    expect(why).to.deep.equal({ 1: "dead-letter", 2: "expired", 3: undefined, 4: "dead-letter" });
    expect(bench.letters.kept.map(({ seq, code }) => [seq, code])).to.deep.equal([
      [1, "too-large"],
      [4, "no-topic"],
    ]);
    expect(bench.cloud.last?.seen("publish")[0]?.properties?.["messageExpiryInterval"]).to.equal(40);
    expect(bench.uplink.state().acknowledged).to.equal(1);
  });

  it("sends QoS 0, unretained, where the cloud takes no more", async () => {
    const bench = await Bench.up(
      {},
      { connect: (c) => c.connack({ properties: { maximumQoS: 0, retainAvailable: false } }) },
    );
    bench.queue.add("a", { retain: true });
    bench.queue.add("b");
    await bench.untilPublished(2);
    for (const packet of bench.cloud.last?.seen("publish") ?? []) expect(packet).to.include({ qos: 0, retain: false });
    expect(bench.queue.settled.map(({ seq }) => seq)).to.deep.equal([1, 2]);
    expect(bench.uplink.state()).to.include({ inflight: 0, sent: 2, acknowledged: 2 });
  });

  it("says where a message is from, and that it is late when it was there before this connection", async () => {
    const bench = await Bench.open({ meta: ["gw", "epoch", "seq", "pri", "ts", "late"] });
    bench.queue.add("before", { priority: 3 });
    bench.uplink.start();
    await bench.untilPublished(1);
    bench.queue.add("after");
    await bench.untilPublished(2);
    const [before, after] = (bench.cloud.last?.seen("publish") ?? []).map(({ properties }) => ({
      ...(properties?.["userProperties"] as object),
    }));
    const ts = new Date(bench.clock.wallMs()).toISOString();
    expect(before).to.deep.equal({ gw: "g1", epoch: "7", seq: "1", pri: "3", ts, late: "1" });
    expect(after).to.deep.equal({ gw: "g1", epoch: "7", seq: "2", pri: "0", ts });
  });

  it("wraps the payload where the config says so", async () => {
    const bench = await Bench.up({ version: 4, envelope: "json" });
    bench.queue.add('{"t":1.50}');
    await bench.untilPublished(1);
    expect(bench.cloud.payloads[0]).to.match(
      /^\{"gw":"g1","epoch":7,"seq":1,"pri":0,"ts":"2026-.*","data":\{"t":1.50\}\}$/,
    );
  });

  it("stops reading the queue while the socket is full, and its window is bounded in bytes", async () => {
    const bench = await Bench.up({ keepAliveMs: 0 }, silent);
    bench.cloud.last?.pause();
    for (let n = 0; n < 64; n += 1) bench.queue.add(Buffer.alloc(256 * 1024, n));
    await until("something handed out", () => bench.queue.handedOut > 0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(bench.queue.handedOut).to.be.within(1, 17); // 4 MiB and one
    bench.cloud.script = {};
    bench.cloud.last?.resume();
    for (const id of ids(bench.cloud.last?.seen("publish"))) bench.cloud.last?.puback(id);
    await until("drained", () => {
      expect(bench.queue.handedOut).to.be.at.most(17);
      return bench.queue.settled.length === 64;
    });
  });
});
