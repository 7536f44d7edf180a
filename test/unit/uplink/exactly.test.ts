import { expect } from "chai";
import type { UplinkOptions } from "../../../src/uplink/options.ts";
import type { CloudConnection, SeenPacket } from "../../helpers/fakeCloud.ts";
import { SessionCloud } from "../../helpers/sessionCloud.ts";
import { turn } from "../journal/support.ts";
import { ExactRig } from "./exactRig.ts";

const opened: Array<() => Promise<unknown>> = [];

afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

async function rigOf(version: 4 | 5, more: Partial<UplinkOptions> = {}): Promise<ExactRig> {
  const cloud = await SessionCloud.open(version);
  opened.push(() => cloud.close());
  const rig = new ExactRig(cloud, { version, ...more });
  await rig.start();
  closing(rig);
  await rig.until("up", () => rig.uplink.state().link === "up");
  return rig;
}

const closing = (rig: ExactRig): void => void opened.push(() => (rig.dead ? rig.stop() : rig.close()));

/** A cloud that answers nothing by itself. */
function silence({ fake }: SessionCloud): void {
  fake.script.publish = () => {};
  fake.script.other = () => {};
}

const last = (rig: ExactRig): CloudConnection => {
  const connection = rig.cloud.fake.last;
  if (connection === undefined) throw new Error("no connection");
  return connection;
};
const ids = (packets: readonly SeenPacket[]): unknown[] => packets.map(({ messageId }) => messageId);

async function reconnect(rig: ExactRig): Promise<void> {
  const before = rig.cloud.fake.connections.length;
  last(rig).close();
  await rig.until("again", () => rig.cloud.fake.connections.length > before && rig.uplink.state().link === "up");
}

const quiet = async (): Promise<void> => {
  for (let turns = 0; turns < 60; turns += 1) await turn();
};

for (const version of [4, 5] as const) {
  describe(`uplink/exactly once, MQTT ${version === 4 ? "3.1.1" : "5"}`, () => {
    it("goes through the four packets, and settles at PUBCOMP", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      await rig.put("a");
      await rig.until("PUBLISH", () => last(rig).seen("publish").length === 1);
      expect(last(rig).seen("publish")[0]).to.include({ qos: 2, dup: false, topic: "up/a" });
      const id = last(rig).seen("publish")[0]?.messageId;
      expect(rig.onRecord.sent).to.equal(1);
      last(rig).send({ cmd: "pubrec", messageId: id });
      await rig.until("PUBREL", () => last(rig).seen("pubrel").length === 1);
      expect(rig.uplink.queue.stats().messages).to.equal(1);
      expect(rig.uplink.state()).to.include({ inflight: 1, acknowledged: 0 });
      last(rig).send({ cmd: "pubcomp", messageId: id });
      await rig.settled();
      expect(rig.uplink.state()).to.include({ inflight: 0, acknowledged: 1, sent: 1 });
      expect(rig.onRecord.sent).to.equal(0);
    });

    it("keeps the order of QoS 1 and QoS 2 within one window", async () => {
      const rig = await rigOf(version, { inflight: 100 });
      const texts = Array.from({ length: 60 }, (_, n) => `m${n}`);
      await Promise.all(texts.map((text, n) => rig.put(text, { qos2: n % 3 !== 1 })));
      await rig.settled();
      expect(rig.cloud.taken).to.deep.equal(texts);
      expect(
        last(rig)
          .seen("publish")
          .map(({ qos }) => qos),
      ).to.deep.equal(texts.map((_, n) => (n % 3 !== 1 ? 2 : 1)));
    });

    for (const present of [true, false]) {
      it(`comes again after a lost link, session ${present ? "present" : "gone"}`, async () => {
        const rig = await rigOf(version);
        silence(rig.cloud);
        for (const text of ["a", "b", "c", "d"]) await rig.put(text);
        await rig.until("four", () => last(rig).seen("publish").length === 4);
        const sent = ids(last(rig).seen("publish"));
        for (const at of [2, 0]) last(rig).send({ cmd: "pubrec", messageId: sent[at] });
        await rig.until("PUBRELs", () => last(rig).seen("pubrel").length === 2);
        rig.cloud.keepsSession = present;
        await reconnect(rig);
        await rig.until("again", () => last(rig).seen("publish").length === 2);
        await quiet();
        const packets = last(rig).packets.filter(({ cmd }) => cmd === "publish" || cmd === "pubrel");
        expect(packets.map(({ cmd, messageId, dup }) => [cmd, messageId, dup])).to.deep.equal([
          // [MQTT-4.6.0-4]: in the order of the PUBRECs. Without a session the cloud has them, and knows nothing of identifiers.
          ...(present ? [2, 0].map((at) => ["pubrel", sent[at], false]) : []),
          ...[1, 3].map((at) => ["publish", sent[at], present]),
        ]);
        expect(rig.uplink.state().acknowledged).to.equal(present ? 0 : 2);
      });

      it(`comes again after a kill, session ${present ? "present" : "gone"}`, async () => {
        const rig = await rigOf(version, { inflight: 50 });
        silence(rig.cloud);
        for (const text of ["a", "b", "c", "d"]) await rig.put(text, { priority: text === "b" ? 5 : 0 });
        await rig.until("four", () => last(rig).seen("publish").length === 4);
        const sent = last(rig).seen("publish");
        last(rig).send({ cmd: "pubrec", messageId: sent[2]?.messageId });
        await rig.until("PUBREL", () => last(rig).seen("pubrel").length === 1);
        rig.cloud.keepsSession = present;
        const next = await rig.successor("kill");
        closing(next);
        await next.put("e", { priority: 9 });
        await next.until("again", () => last(next).seen("publish").length === 4);
        await quiet();
        const packets = last(next).packets.filter(({ cmd }) => cmd === "publish" || cmd === "pubrel");
        expect(
          packets.map(({ cmd, messageId, dup, payload }) => [cmd, messageId, dup, String(payload ?? "")]),
        ).to.deep.equal([
          ...(present ? [["pubrel", sent[2]?.messageId, false, ""]] : []),
          ...[0, 1, 3].map((at) => ["publish", sent[at]?.messageId, present, String(sent[at]?.payload)]),
          ["publish", packets.at(-1)?.messageId, false, "e"],
        ]);
        expect(sent.map(({ messageId }) => messageId)).to.not.include(packets.at(-1)?.messageId);
        expect(next.uplink.queue.stats().messages).to.equal(present ? 5 : 4);
      });
    }

    it("neither expires nor gives way once it was sent, over a restart too", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      await rig.put("a", { properties: { messageExpirySeconds: 5 } });
      await rig.put("b");
      await rig.until("two", () => last(rig).seen("publish").length === 2);
      rig.cloud.fake.script.connect = () => {};
      rig.clock.advance(60_000);
      const next = await rig.successor("kill", { queue: { maxBytes: 200, maxAgeMs: 1000, whenFull: "drop-oldest" } });
      closing(next);
      for (const text of ["c", "d", "e", "f"]) await next.put(text.padEnd(60));
      next.clock.advance(2000);
      await quiet();
      next.cloud.fake.script.connect = (connection) => connection.connack({ sessionPresent: true });
      await reconnect(next);
      await next.until("again", () => last(next).seen("publish").length >= 2);
      const again = last(next).seen("publish").slice(0, 2);
      expect(again.map(({ payload, dup }) => [String(payload), dup])).to.deep.equal([
        ["a", true],
        ["b", true],
      ]);
      expect(next.uplink.queue.stats().dropped).to.have.any.keys("full", "expired");
    });

    it("believes nothing that cannot be, answers it, and loses nothing", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      await rig.put("one", { qos2: false });
      await rig.put("two");
      await rig.until("both", () => last(rig).seen("publish").length === 2);
      const [one, two] = ids(last(rig).seen("publish"));
      for (const packet of [
        { cmd: "pubrec", messageId: 4711 },
        { cmd: "pubcomp", messageId: two },
        { cmd: "pubcomp", messageId: 4711 },
        { cmd: "pubrel", messageId: 4711 },
      ])
        last(rig).send(packet);
      await rig.until("answers", () => last(rig).seen("pubcomp").length === 1 && last(rig).seen("pubrel").length === 1);
      const code = version === 5 ? 0x92 : undefined;
      expect(last(rig).seen("pubcomp")[0]).to.include({ messageId: 4711 });
      expect(last(rig).seen("pubcomp")[0]?.reasonCode).to.equal(code);
      expect(
        last(rig)
          .seen("pubrel")
          .map(({ reasonCode }) => reasonCode),
      ).to.deep.equal([code]);
      expect(rig.uplink.queue.stats().messages).to.equal(2);
      expect(rig.metric("tidegate_uplink_stray_acks_total")).to.equal(4);
      last(rig).send({ cmd: "pubrec", messageId: two });
      await rig.until("PUBREL", () => last(rig).seen("pubrel").length === 2);
      last(rig).send({ cmd: "pubrec", messageId: two }); // once more: the same answer, once more
      await rig.until("PUBREL again", () => last(rig).seen("pubrel").length === 3);
      last(rig).puback(one as number);
      last(rig).send({ cmd: "pubcomp", messageId: two });
      await rig.settled();
      expect(rig.uplink.state().link).to.equal("up");
    });

    for (const [cmd, qos2] of [
      ["puback", true],
      ["pubrec", false],
      ["pubcomp", false],
    ] as const)
      it(`leaves a cloud that says ${cmd} for QoS ${qos2 ? 2 : 1}, and sends it again`, async () => {
        const rig = await rigOf(version);
        silence(rig.cloud);
        await rig.put("a", { qos2 });
        await rig.until("PUBLISH", () => last(rig).seen("publish").length === 1);
        const first = last(rig);
        first.send({ cmd, messageId: first.seen("publish")[0]?.messageId });
        await rig.until("left", () => first.closed);
        await rig.until("again", () => last(rig) !== first && last(rig).seen("publish").length === 1);
        expect(last(rig).seen("publish")[0]).to.include({ qos: qos2 ? 2 : 1, dup: true });
        expect(rig.uplink.queue.stats().messages).to.equal(1);
      });

    it("goes on where it stood after a stop and a start of another uplink on this queue", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      await rig.put("a");
      await rig.put("b");
      await rig.until("two", () => last(rig).seen("publish").length === 2);
      const sent = ids(last(rig).seen("publish"));
      last(rig).send({ cmd: "pubrec", messageId: sent[0] });
      await rig.until("PUBREL", () => last(rig).seen("pubrel").length === 1);
      await rig.stop();
      rig.uplink.start();
      await rig.until("again", () => last(rig).seen("publish").length === 1 && last(rig).seen("pubrel").length === 1);
      expect(ids(last(rig).seen("pubrel"))).to.deep.equal([sent[0]]);
      expect(last(rig).seen("publish")[0]).to.include({ messageId: sent[1], dup: true });
    });

    it("sends QoS 1 when the config says maxQos: 1, also what was sent with QoS 2 before", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      for (const text of ["a", "b"]) await rig.put(text);
      await rig.until("two", () => last(rig).seen("publish").length === 2);
      const sent = ids(last(rig).seen("publish"));
      last(rig).send({ cmd: "pubrec", messageId: sent[0] });
      await rig.until("PUBREL", () => last(rig).seen("pubrel").length === 1);
      const next = await rig.successor("kill", { maxQos: 1 });
      closing(next);
      await next.until("again", () => last(next).seen("publish").length === 1);
      expect(last(next).seen("publish")[0]).to.include({ qos: 1, messageId: sent[1], dup: true });
      expect(last(next).seen("pubrel")).to.deep.equal([]);
      last(next).puback(sent[1] as number);
      await next.settled();
      expect(next.onRecord.sent).to.equal(0);
    });

    // ---------------------------------------------------------------- down

    it("takes a command once, whatever comes twice, and over a kill", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      const command = { qos: 2, messageId: 7 };
      last(rig).publish("down/x", "open", command);
      await rig.until("PUBREC", () => last(rig).seen("pubrec").length === 1);
      expect(rig.onRecord.held).to.equal(1);
      last(rig).publish("down/x", "open", { ...command, dup: true });
      await rig.until("PUBREC again", () => last(rig).seen("pubrec").length === 2);
      const next = await rig.successor("kill");
      closing(next);
      await next.until("up", () => next.uplink.state().link === "up");
      last(next).publish("down/x", "open", { ...command, dup: true });
      await next.until("PUBREC", () => last(next).seen("pubrec").length === 1);
      expect(await next.tapped()).to.deep.equal(["open"]);
      expect(next.metric("tidegate_uplink_commands_repeated_total")).to.equal(1);
      last(next).send({ cmd: "pubrel", messageId: 7 });
      await next.until("PUBCOMP", () => last(next).seen("pubcomp").length === 1);
      expect(next.onRecord.held).to.equal(0);
      last(next).publish("down/x", "close", command);
      await next.until("PUBREC", () => last(next).seen("pubrec").length === 2);
      expect(await next.tapped()).to.deep.equal(["open", "close"]);
    });

    it("holds no identifiers of a session that is gone", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      last(rig).publish("down/x", "open", { qos: 2, messageId: 7 });
      await rig.until("PUBREC", () => last(rig).seen("pubrec").length === 1);
      rig.cloud.keepsSession = false;
      await reconnect(rig);
      last(rig).publish("down/x", "close", { qos: 2, messageId: 7 });
      await rig.until("PUBREC", () => last(rig).seen("pubrec").length === 1);
      expect(await rig.tapped()).to.deep.equal(["open", "close"]);
    });

    it("goes through all four packets with what no rule can place", async () => {
      const rig = await rigOf(version);
      silence(rig.cloud);
      last(rig).publish("elsewhere", "x", { qos: 2, messageId: 9 });
      await rig.until("PUBREC", () => last(rig).seen("pubrec").length === 1);
      last(rig).send({ cmd: "pubrel", messageId: 9 });
      await rig.until("PUBCOMP", () => last(rig).seen("pubcomp").length === 1);
      expect(last(rig).seen("pubcomp")[0]?.reasonCode ?? 0).to.equal(0);
      expect(rig.metric("tidegate_uplink_commands_ignored_total")).to.equal(1);
    });
  });
}

describe("uplink/exactly once, what only MQTT 5 can say", () => {
  it("keeps to Receive Maximum until PUBCOMP", async () => {
    const cloud = await SessionCloud.open(5);
    opened.push(() => cloud.close());
    cloud.connackProperties = { receiveMaximum: 2 };
    silence(cloud);
    const rig = await new ExactRig(cloud).start();
    closing(rig);
    for (const text of ["a", "b", "c", "d"]) await rig.put(text);
    await rig.until("two", () => cloud.fake.last?.seen("publish").length === 2);
    const [first] = ids(last(rig).seen("publish"));
    last(rig).send({ cmd: "pubrec", messageId: first });
    await rig.until("PUBREL", () => last(rig).seen("pubrel").length === 1);
    await quiet();
    expect(last(rig).seen("publish")).to.have.length(2);
    last(rig).send({ cmd: "pubcomp", messageId: first });
    await rig.until("a third", () => last(rig).seen("publish").length === 3);
    await quiet();
    expect(last(rig).seen("publish")).to.have.length(3);
  });

  for (const maximumQoS of [0, 1])
    it(`obeys Maximum QoS ${maximumQoS}`, async () => {
      const cloud = await SessionCloud.open(5);
      opened.push(() => cloud.close());
      cloud.connackProperties = { maximumQoS };
      const rig = await new ExactRig(cloud).start();
      closing(rig);
      await rig.put("a");
      await rig.settled();
      await rig.until("PUBLISH", () => cloud.fake.last?.seen("publish").length === 1);
      expect(last(rig).seen("publish")[0]?.qos).to.equal(maximumQoS);
      expect(rig.onRecord.sent).to.equal(0);
    });

  it("offers again what PUBREC refuses for now, as a new delivery, and buries what it refuses for good", async () => {
    const rig = await rigOf(5);
    let times = 0;
    rig.cloud.refuse = (payload) => {
      if (payload === "bad") return 0x99;
      if (payload !== "later") return 0;
      times += 1;
      return times < 3 ? 0x97 : 0;
    };
    for (const text of ["bad", "later", "after"]) await rig.put(text);
    await rig.settled();
    expect(rig.letters).to.deep.equal(["bad"]);
    expect(rig.cloud.taken.sort()).to.deep.equal(["after", "later"]);
    const later = last(rig)
      .seen("publish")
      .filter(({ payload }) => String(payload) === "later");
    expect(later.map(({ dup }) => dup)).to.deep.equal([false, false, false]);
    expect(rig.onRecord.sent).to.equal(0);
  });

  it("closes a link that has more than our Receive Maximum open with QoS 2", async () => {
    const rig = await rigOf(5);
    silence(rig.cloud);
    for (let n = 1; n <= 101; n += 1) last(rig).publish("down/x", `c${n}`, { qos: 2, messageId: n });
    await rig.until("DISCONNECT", () => last(rig).seen("disconnect").length === 1);
    expect(last(rig).seen("disconnect")[0]?.reasonCode).to.equal(0x93);
  });
});

describe("uplink/whose session it is", () => {
  const clean = (rig: ExactRig): unknown[] =>
    rig.cloud.fake.connections.flatMap((connection) => connection.seen("connect").map((packet) => packet["clean"]));

  for (const version of [4, 5] as const) {
    it(`discards once, from a new data folder, what the cloud may have (MQTT ${version})`, async () => {
      const rig = await rigOf(version);
      await rig.until("up", () => rig.cloud.fake.connections.length === (version === 4 ? 2 : 1));
      await rig.put("a");
      await rig.settled();
      await reconnect(rig);
      const next = await rig.successor("kill");
      closing(next);
      await next.until("up", () => next.uplink.state().link === "up");
      expect(clean(next)).to.deep.equal(version === 4 ? [true, false, false, false] : [true, false, false]);
    });
  }

  it("discards it too when the first start of a new folder found no cloud", async () => {
    const cloud = await SessionCloud.open(5);
    opened.push(() => cloud.close());
    const rig = await new ExactRig(cloud, { urls: ["mqtt://127.0.0.1:1"] }).start();
    await rig.put("a");
    const next = await rig.successor("kill", { urls: [cloud.url] });
    closing(rig);
    closing(next);
    await next.settled();
    expect(clean(next)).to.deep.equal([true]);
  });

  it("keeps the session where nothing is sent with QoS 2", async () => {
    const rig = await rigOf(5, { forward: [] });
    expect(clean(rig)).to.deep.equal([false]);
  });

  it("does not trust a session that another broker has outlived", async () => {
    const one = await SessionCloud.open(5);
    const other = await SessionCloud.open(5);
    opened.push(
      () => one.close(),
      () => other.close(),
    );
    const rig = await new ExactRig(one, { urls: [one.url, other.url] }).start();
    closing(rig);
    const up = (cloud: SessionCloud, times: number): Promise<void> =>
      rig.until("up", () => cloud.fake.connections.length === times && rig.uplink.state().link === "up");
    await up(one, 1);
    one.fake.last?.close();
    await up(other, 1); // it has no session: the one at the first is an old one from here on
    other.fake.last?.close();
    await up(one, 2);
    expect(one.fake.connections.map((c) => c.seen("connect")[0]?.["clean"])).to.deep.equal([true, true]);
    expect(other.fake.connections.map((c) => c.seen("connect")[0]?.["clean"])).to.deep.equal([false]);
  });
});
