import { expect } from "chai";
import { generate } from "mqtt-packet";
import type { QueuedMessage } from "../../../src/base/contracts.ts";
import { AnswerWatch, windowHeads } from "../../../src/uplink/answerWatch.ts";
import { Window } from "../../../src/uplink/window.ts";
import type { SeenPacket } from "../../helpers/fakeCloud.ts";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches } from "./bench.ts";

afterEach(closeBenches);

const queued = (payload: Uint8Array): QueuedMessage => ({
  ...{ position: 1, lane: 1, priority: 0, seq: 1, rule: 1, acceptedAtMs: 0, wallMs: 0 },
  message: { topic: "t", payload, qos: 1, retain: false, source: "test" },
});

/** Time passes as in the gateway, which looks each 5 s; the cloud answers pings and is heard meanwhile. */
async function pass(bench: Bench, seconds: number): Promise<void> {
  for (let passed = 0; passed < seconds && bench.uplink.state().link === "up"; passed += 5) {
    bench.clock.advance(5000);
    bench.uplink.look();
    // The cloud is heard at least twice within the keep alive.
    if (passed % 25 === 0 && bench.uplink.state().link === "up") await bench.quiet();
  }
}

for (const version of [4, 5] as const) {
  describe(`a cloud that answers pings and not messages, MQTT ${version === 4 ? "3.1.1" : "5"}`, () => {
    it("is left after five minutes, which is said, and gets the messages again", async () => {
      let answers = false;
      const bench = await Bench.up(
        { version },
        {
          connect: (connection) => connection.connack({ sessionPresent: answers }),
          publish: (connection, { messageId }) => answers && connection.puback(messageId),
        },
      );
      bench.queue.add("a");
      bench.queue.add("b");
      await bench.untilPublished(2);
      await pass(bench, 295);
      expect(bench.uplink.state().link).to.equal("up");
      const { last } = bench.cloud;
      await pass(bench, 15);
      expect(bench.uplink.state()).to.include({ link: "backoff", reason: "ack-timeout" });
      expect(bench.uplink.state().problem).to.match(/^no PUBACK within 30\d s for the message with seq 1, 1 bytes on /);
      expect(bench.uplink.state().problem).to.include("see its log");
      expect(bench.metric("tidegate_uplink_faults_total", 'reason="ack-timeout"')).to.equal(1);
      await until("the socket is closed", () => last?.closed);
      if (version === 5) expect(last?.seen("disconnect")[0]?.reasonCode).to.equal(0x80);
      expect(bench.queue.settled).to.deep.equal([]);
      answers = true;
      bench.retry();
      await bench.untilSettled(2);
      const again = bench.cloud.last!.seen("publish");
      expect(again.map(({ payload, dup }) => [String(payload), dup])).to.deep.equal([
        ["a", true],
        ["b", true],
      ]);
    });

    it("is left for one answer that it leaves out, too", async () => {
      const bench = await Bench.up(
        { version },
        {
          publish: (connection, { payload, messageId }) => String(payload) !== "poison" && connection.puback(messageId),
        },
      );
      bench.queue.add("poison");
      for (let n = 1; n <= 32 && bench.uplink.state().link === "up"; n += 1) {
        bench.queue.add(`m${n}`);
        await bench.untilSettled(n);
        await pass(bench, 10);
      }
      expect(bench.uplink.state()).to.include({ link: "backoff", reason: "ack-timeout" });
      expect(bench.uplink.state().problem).to.include("seq 1, 6 bytes");
    });

    it("is kept while the first one that waits is another one each time, as on a slow link", async () => {
      const waiting: Array<number | undefined> = [];
      const bench = await Bench.up(
        { version },
        { publish: (_connection: unknown, { messageId }: SeenPacket) => void waiting.push(messageId) },
      );
      for (let n = 0; n < 4; n += 1) bench.queue.add(`m${n}`);
      await bench.untilPublished(4);
      for (let n = 1; n <= 4; n += 1) {
        await pass(bench, 290);
        bench.cloud.last?.puback(waiting.shift());
        await bench.untilSettled(n);
      }
      await pass(bench, 600); // nothing waits
      expect(bench.uplink.state().link).to.equal("up");
    });
  });
}

describe("exchanges of QoS 2", () => {
  it("are watched at both of their steps", () => {
    const window = new Window();
    const watch = new AnswerWatch(() => windowHeads(window));
    const slot = window.add(queued(Buffer.from("x")), 2);
    slot.known = true; // it went out
    const overdue = (): string | undefined => {
      watch.restart();
      for (let ms = 0; ms <= 310_000; ms += 5000) {
        const found = watch.look(ms);
        if (found !== undefined) return found.answer;
      }
      return undefined;
    };
    expect(overdue()).to.equal("PUBREC");
    const release = window.received(slot.packetId)!;
    expect(overdue()).to.equal(undefined); // PUBREL waits for our disk
    release.sent = true;
    expect(overdue()).to.equal("PUBCOMP");
    window.complete(release);
    expect(overdue()).to.equal(undefined);
  });
});

describe("a message that takes long to go out", () => {
  it("is waited for as long as it may take on a slow link", () => {
    const window = new Window();
    const watch = new AnswerWatch(() => windowHeads(window));
    window.add(queued(new Uint8Array(512 * 1024)), 1).known = true;
    let ms = 0;
    while (watch.look(ms) === undefined) ms += 5000;
    expect(ms / 1000).to.be.within(300 + 2048, 300 + 2060);
  });
});

describe("time in which answers could not be heard", () => {
  it("does not count: a machine that stood still", async () => {
    const bench = await Bench.up({ keepAliveMs: 0 }, { publish: () => {} });
    bench.queue.add("a");
    await bench.untilPublished(1);
    bench.uplink.look();
    for (let n = 0; n < 5; n += 1) {
      bench.clock.advance(3_600_000);
      bench.uplink.look();
    }
    expect(bench.uplink.state().link).to.equal("up");
  });
});

describe("a cloud that does not answer SUBSCRIBE", () => {
  it("is left once; then that is said, and the link stays, for messages pass all the same", async () => {
    const receive = [{ topic: "cmd/#", to: "cmd/{rest}", qos: 1 as const, expiryMs: undefined }];
    let answers = false;
    const bench = await Bench.up(
      { receive },
      {
        subscribe: (connection, { messageId }) =>
          answers && connection.send({ cmd: "suback", messageId, granted: [1], reasonCode: 0 }),
      },
    );
    await pass(bench, 295);
    expect(bench.uplink.state().link).to.equal("up");
    await pass(bench, 15);
    expect(bench.uplink.state().reason).to.equal("ack-timeout");
    expect(bench.uplink.state().problem).to.match(/^no SUBACK within 30\d s/);
    bench.retry();
    await bench.untilUp();
    await pass(bench, 290);
    expect(bench.uplink.state()).to.include({ link: "up", problem: undefined });
    await pass(bench, 400);
    expect(bench.uplink.state().link).to.equal("up");
    expect(bench.uplink.state().problem).to.match(/^the cloud has not answered our SUBSCRIBE: commands may not come/);
    answers = true;
    await bench.reconnect();
    await until("it is subscribed", () => bench.uplink.state().problem === undefined);
  });
});

describe("a large command that comes in slowly", () => {
  it("has the answers behind it: they are waited for until it is through, and from then on as ever", async () => {
    const bench = await Bench.up({ version: 4, keepAliveMs: 0 }, { publish: () => {} });
    bench.queue.add("a");
    await bench.untilPublished(1);
    const { last } = bench.cloud;
    const [cmd, rest] = [Buffer.from([0x30, 100, 0, 1, 0x61]), Buffer.alloc(97)];
    const ping = generate({ cmd: "publish", topic: "x", payload: "", qos: 1, messageId: 9, dup: false, retain: false });
    last?.sendRaw(Buffer.concat([ping, cmd])); // one write, and so one piece: with our PUBACK the rest has come, too
    await until("it has begun", () => last?.seen("puback").length === 1);
    const wait = (seconds: number): void => {
      for (let n = 0; n < seconds; n += 5) {
        bench.clock.advance(5000);
        bench.uplink.look();
      }
    };
    wait(900);
    expect(bench.uplink.state().link).to.equal("up");
    last?.sendRaw(rest);
    await bench.quiet();
    wait(290);
    expect(bench.uplink.state().link).to.equal("up");
    wait(25);
    expect(bench.uplink.state().reason).to.equal("ack-timeout");
  });
});

describe("several urls", () => {
  it("are tried in their order when the first takes messages and answers none", async () => {
    const other = await Bench.up({ clientId: "other" });
    const bench = await Bench.open({}, { publish: () => {} });
    const uplink = bench.another({ ...bench.uplink.options, urls: [bench.cloud.url, other.cloud.url] });
    uplink.start();
    await until("it is up", () => uplink.state().link === "up");
    bench.queue.add("a");
    await bench.untilPublished(1);
    for (let n = 0; n < 64 && uplink.state().link === "up"; n += 1) {
      bench.clock.advance(5000);
      uplink.look();
      if (n % 5 === 0 && uplink.state().link === "up") await bench.quiet();
    }
    expect(uplink.state().reason).to.equal("ack-timeout");
    expect(uplink.state().url).to.equal(other.cloud.url);
    await uplink.stop();
  });
});
