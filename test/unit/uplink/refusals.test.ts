import { expect } from "chai";
import { parseTemplate } from "../../../src/base/template.ts";
import type { CloudConnection, SeenPacket } from "../../helpers/fakeCloud.ts";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches } from "./bench.ts";

afterEach(closeBenches);

/** A cloud that answers each payload with a code; 0 where none is named. */
const answering =
  (codes: Record<string, number>) =>
  (cloud: CloudConnection, { payload, messageId }: SeenPacket): void =>
    cloud.puback(messageId, codes[String(payload)] ?? 0);
const refusals = (bench: Bench): number => bench.metric("tidegate_uplink_refusals_total");

describe("uplink/refusals", () => {
  for (const [code, text] of [
    [0x87, "not authorized"],
    [0x90, "topic name invalid"],
    [0x95, "packet too large"],
    [0x99, "payload format invalid"],
  ] as const) {
    it(`0x${code.toString(16)}: a dead letter at once, and the ones behind it go on`, async () => {
      const bench = await Bench.up({ inflight: 1 }, { publish: answering({ bad: code }) });
      for (const payload of ["a", "bad", "b", "c"]) bench.queue.add(payload);
      await bench.untilSettled(4);
      expect(bench.cloud.payloads).to.deep.equal(["a", "bad", "b", "c"]);
      expect(bench.queue.settled).to.deep.equal([
        { seq: 1, dropped: undefined },
        { seq: 2, dropped: "dead-letter" },
        { seq: 3, dropped: undefined },
        { seq: 4, dropped: undefined },
      ]);
      const [letter] = bench.letters.kept;
      expect(letter).to.include({ seq: 2, uplink: "cloud", attempts: 1, code: `0x${code.toString(16)}` });
      expect(letter?.text).to.equal(`the cloud refused it: ${text}`);
      expect(letter?.rule).to.equal(bench.rules.get(1));
      expect([letter?.firstMs, letter?.lastMs]).to.deep.equal([bench.clock.wallMs(), bench.clock.wallMs()]);
      expect(bench.uplink.state()).to.include({ inflight: 0, acknowledged: 3, problem: undefined });
    });
  }

  it("keeps the cloud's own words, cleaned", async () => {
    const properties = { reasonString: "not\nfor \u001b[31myou" };
    const bench = await Bench.up(
      {},
      { publish: (c, { messageId }) => c.send({ cmd: "puback", messageId, reasonCode: 0x87, properties }) },
    );
    bench.queue.add("x");
    await bench.untilSettled(1);
    expect(bench.letters.kept[0]?.text).to.equal("the cloud refused it: not authorized (not?for ?[31myou)");
  });

  for (const code of [0x80, 0x83, 0x97, 0x91, 0xa0]) {
    it(`0x${code.toString(16)}: growing pauses, each a new delivery, then a dead letter`, async () => {
      const bench = await Bench.up({ refusedRetries: 3 }, { publish: answering({ bad: code }) });
      bench.queue.add("bad");
      const firstMs = bench.clock.wallMs();
      for (const [retry, pauseMs] of [500, 1000, 2000].entries()) {
        await until("refused", () => refusals(bench) === retry + 1);
        bench.clock.advance(pauseMs - 1);
        await bench.quiet();
        expect(bench.cloud.payloads).to.have.length(1 + retry);
        expect(bench.uplink.state().problem).to.match(/^the cloud refused a message: .*; offered again after a pause$/);
        bench.clock.advance(1);
        await bench.untilPublished(2 + retry);
      }
      await bench.untilSettled(1);
      expect(bench.queue.settled).to.deep.equal([{ seq: 1, dropped: "dead-letter" }]);
      expect(bench.cloud.last?.seen("publish").map(({ dup }) => dup)).to.deep.equal(Array(4).fill(false)); // [MQTT-4.4.0-2]
      const [letter] = bench.letters.kept;
      expect(letter).to.include({ attempts: 4, code: `0x${code.toString(16)}`, firstMs, lastMs: firstMs + 3500 });
      expect(letter?.text).to.match(/^the cloud refused it 4 times: /);
      expect(bench.uplink.state()).to.include({ inflight: 0, problem: undefined });
    });
  }

  it("lets the lane wait, in order, while others go on", async () => {
    let open = false;
    const bench = await Bench.up(
      { inflight: 1 },
      { publish: (c, { payload, messageId }) => c.puback(messageId, !open && String(payload) === "l1" ? 0x97 : 0) },
    );
    for (const payload of ["l1", "l2", "l3"]) bench.queue.add(payload, { priority: 1 });
    await until("refused", () => refusals(bench) === 1);
    for (const payload of ["h1", "h2"]) bench.queue.add(payload, { priority: 9 });
    for (const payload of ["n1", "n2"]) bench.queue.add(payload, { priority: 0 });
    await bench.untilSettled(4);
    await bench.quiet();
    expect(bench.cloud.payloads).to.deep.equal(["l1", "h1", "h2", "n1", "n2"]);
    open = true;
    bench.clock.advance(500);
    await bench.untilSettled(7);
    expect(bench.cloud.payloads.slice(5)).to.deep.equal(["l1", "l2", "l3"]);
    expect(bench.letters.kept).to.deep.equal([]);
    expect(bench.queue.settledTwice).to.equal(0);
  });

  it("asks a cloud whose quota is used up once a pause, whatever was in flight, and then goes on in order", async () => {
    let open = false;
    const bench = await Bench.up(
      { inflight: 50, refusedRetries: 10 },
      { publish: (c, { messageId }) => c.puback(messageId, open ? 0 : 0x97) },
    );
    const all = Array.from({ length: 120 }, (_, n) => String(n));
    for (const payload of all) bench.queue.add(payload);
    await until("the window was refused", () => refusals(bench) === 50);
    await bench.quiet();
    expect(bench.cloud.payloads).to.have.length(50);
    for (const [at, pauseMs] of [500, 1000, 2000, 4000].entries()) {
      bench.clock.advance(pauseMs);
      await until("refused again", () => refusals(bench) === 51 + at);
    }
    await bench.quiet();
    expect(bench.cloud.payloads.slice(50)).to.deep.equal(["0", "0", "0", "0"]);
    open = true;
    bench.clock.advance(8000);
    await bench.untilSettled(120);
    expect(bench.cloud.payloads.slice(54)).to.deep.equal(all);
    expect(bench.letters.kept).to.deep.equal([]);
  });

  for (const [what, refusedAgain] of [
    ["the first", 6],
    ["one in a burst", 8],
  ] as const)
    it(`${what} refused on a new connection: what waits there to be sent again does not pass it`, async () => {
      const all = Array.from({ length: 6 }, (_, n) => String(n));
      const taken: string[] = [];
      let seen = 0;
      const bench = await Bench.up(
        {},
        {
          connect: (c) => c.connack({ properties: { receiveMaximum: seen === 0 ? 6 : 1 } }),
          publish(c, { payload, messageId }) {
            const refused = seen < 6 || seen === refusedAgain;
            seen += 1;
            if (!refused) taken.push(String(payload));
            c.puback(messageId, refused ? 0x97 : 0);
          },
        },
      );
      for (const payload of all) bench.queue.add(payload);
      await until("all are refused", () => refusals(bench) === 6);
      await bench.reconnect();
      await until("one is refused once more", () => refusals(bench) === 7);
      await bench.quiet();
      expect(bench.cloud.last?.payloads).to.deep.equal(all.slice(0, refusedAgain - 5));
      bench.clock.advance(30_000);
      await bench.untilSettled(6);
      expect(taken).to.deep.equal(all);
      expect(bench.uplink.state()).to.include({ inflight: 0, problem: undefined });
    });

  it("offers none again before the answer to an older one, however late the cloud refuses", async () => {
    const bench = await Bench.up({}, { publish: () => {} });
    for (const payload of ["a", "b"]) bench.queue.add(payload);
    await bench.untilPublished(2);
    const ids = bench.cloud.last?.seen("publish").map(({ messageId }) => Number(messageId)) ?? [];
    const [a = 0, b = 0] = ids;
    bench.cloud.last?.puback(a, 0x97);
    await until("a is refused", () => refusals(bench) === 1);
    bench.clock.advance(500);
    await bench.untilPublished(3);
    bench.cloud.last?.puback(b, 0x97);
    await until("b is refused", () => refusals(bench) === 2);
    bench.clock.advance(500);
    await bench.quiet();
    expect(bench.cloud.payloads).to.deep.equal(["a", "b", "a"]);
    bench.cloud.last?.puback(a, 0);
    await bench.untilPublished(4);
    expect(bench.cloud.payloads).to.deep.equal(["a", "b", "a", "b"]);
    bench.cloud.last?.puback(b, 0);
    await bench.untilSettled(2);
  });

  it("goes on with the next of the lane when the first one is given up", async () => {
    const bench = await Bench.up({ inflight: 10, refusedRetries: 0 }, { publish: answering({ a: 0x80, b: 0x83 }) });
    for (const payload of ["a", "b", "c", "d"]) bench.queue.add(payload);
    await bench.untilSettled(4);
    expect(bench.letters.kept.map(({ seq, code }) => [seq, code])).to.deep.equal([
      [1, "0x80"],
      [2, "0x83"],
    ]);
    expect(bench.uplink.state()).to.include({ inflight: 0, acknowledged: 2 });
  });

  it("what a lane holds takes no room of others, up to a bound", async () => {
    const refused = answering({});
    const bench = await Bench.up(
      { inflight: 5 },
      {
        publish: (c, packet) =>
          String(packet.payload).startsWith("l") ? c.puback(packet.messageId, 0x97) : refused(c, packet),
      },
    );
    for (let n = 0; n < 5; n += 1) bench.queue.add(`l${n}`, { priority: 5 });
    await until("refused", () => refusals(bench) === 5);
    for (let n = 0; n < 20; n += 1) bench.queue.add(`n${n}`, { priority: 1 });
    await bench.untilSettled(20);
    expect(bench.uplink.state().inflight).to.equal(5);
  });

  it("keeps a message where it is while the store has no room for a letter, and others go on", async () => {
    const bench = await Bench.up({ inflight: 1 }, { publish: answering({ bad: 0x87 }) });
    bench.letters.answer = "later";
    for (const payload of ["bad", "a", "b"]) bench.queue.add(payload);
    await bench.untilSettled(2);
    expect(bench.uplink.state()).to.include({ inflight: 1, acknowledged: 2 });
    expect(bench.uplink.state().problem).to.include("wait for room among the dead letters");
    bench.clock.advance(5000);
    expect(bench.letters.kept).to.deep.equal([]);
    bench.letters.answer = "kept";
    bench.clock.advance(1000);
    expect(bench.letters.kept.map(({ seq }) => seq)).to.deep.equal([1]);
    expect(bench.uplink.state()).to.include({ inflight: 0, problem: undefined });
    expect(bench.cloud.payloads).to.deep.equal(["bad", "a", "b"]);
  });

  it("drops, counted, what it gives up where dead letters are off", async () => {
    const bench = await Bench.up({ maxPacketSize: 100 }, { publish: answering({ bad: 0x87 }) });
    bench.letters.answer = "off";
    bench.queue.add("bad");
    bench.queue.add("x".repeat(200));
    await bench.untilSettled(2);
    const dropped = bench.queue.settled.map(({ dropped: why }) => why).sort();
    expect(dropped).to.deep.equal(["refused", "too-large"]);
    expect(bench.lines.filter(({ message }) => message.startsWith("a message was given up"))).to.have.length(2);
  });

  it("believes no refusal of what the cloud cannot have, and none twice", async () => {
    const bench = await Bench.up({}, { publish() {} });
    bench.queue.add("x");
    const [packet] = [(await bench.untilPublished(1)) && bench.cloud.last?.seen("publish")[0]];
    bench.cloud.last?.puback(4711, 0x87);
    bench.cloud.last?.puback(packet?.messageId, 0x97);
    bench.cloud.last?.puback(packet?.messageId, 0x87);
    await bench.quiet();
    expect(bench.letters.kept).to.deep.equal([]);
    expect(bench.metric("tidegate_uplink_stray_acks_total")).to.equal(2);
    expect(refusals(bench)).to.equal(1);
  });

  it("tells the letters of each one that the cloud took, for what they remember of a retry", async () => {
    const bench = await Bench.up();
    const { position } = bench.queue.add("x");
    await bench.untilSettled(1);
    expect(bench.letters.acknowledgedAt).to.deep.equal([position]);
  });
});

describe("uplink/pause", () => {
  it("stays up and sends nothing, also not again nor live, and goes on at resume", async () => {
    const bench = await Bench.up({ inflight: 2 }, { publish() {} });
    for (const payload of ["a", "b", "c"]) bench.queue.add(payload);
    await bench.untilPublished(2);
    bench.uplink.pause(true);
    expect(bench.uplink.state()).to.include({ link: "up", paused: true });
    bench.cloud.last?.puback(bench.cloud.last.seen("publish")[0]?.messageId);
    await bench.untilSettled(1); // answers still count
    await bench.reconnect();
    await bench.quiet();
    expect(bench.cloud.last?.payloads).to.deep.equal([]);
    bench.uplink.sendLive(
      { topic: "plant/a", payload: Buffer.from("now"), qos: 0, retain: false, source: "test" },
      { filter: "plant/#", to: parseTemplate("up/{rest}"), qos: 0, priority: 0 },
    );
    expect(bench.metric("tidegate_uplink_live_dropped_total", 'reason="paused"')).to.equal(1);
    bench.cloud.script = {};
    bench.uplink.pause(false);
    await bench.untilSettled(3);
    expect(bench.cloud.last?.payloads).to.deep.equal(["b", "c"]);
    expect(bench.uplink.state().paused).to.equal(false);
  });

  it("survives a restart", async () => {
    const bench = await Bench.up();
    bench.uplink.pause(true);
    await bench.uplink.stop();
    bench.queue.add("x");
    const next = bench.another(bench.uplink.options);
    next.start();
    await until("up", () => next.state().link === "up");
    expect(next.state().paused).to.equal(true);
    await bench.quiet();
    expect(bench.cloud.payloads).to.deep.equal([]);
    next.pause(false);
    await bench.untilSettled(1);
    await next.stop();
  });
});
