import { expect } from "chai";
import fc from "fast-check";
import type { QueuedMessage } from "../../../src/base/contracts.ts";
import type { Message } from "../../../src/base/message.ts";
import { Answers } from "../../../src/uplink/answers.ts";
import { fillTopic, parseRule, ruleText } from "../../../src/uplink/forwarding.ts";
import { dress, encodeForward } from "../../../src/uplink/outgoing.ts";
import { Pace } from "../../../src/uplink/pace.ts";
import { Window } from "../../../src/uplink/window.ts";

const message = (payload: Uint8Array | string, more: Partial<Message> = {}): Message => ({
  topic: "plant/boiler",
  payload: Buffer.from(payload),
  qos: 1,
  retain: false,
  source: "test",
  ...more,
});

const queued = (seq: number, payload = "x"): QueuedMessage => ({
  position: seq * 100,
  lane: 1,
  priority: 0,
  seq,
  rule: 1,
  acceptedAtMs: 0,
  wallMs: 0,
  message: message(payload),
});

/** Puts it on the wire, with QoS 1. */
function send(window: Window, message: QueuedMessage): number {
  const slot = window.add(message, 1);
  slot.known = true;
  return slot.packetId;
}

function sendAgain(window: Window): { packetId: number; message: QueuedMessage; dup: boolean } | undefined {
  const slot = window.nextAgain();
  if (slot === undefined) return undefined;
  const { packetId, message, known } = slot;
  slot.known = true;
  return { packetId, message, dup: known };
}

describe("uplink/window", () => {
  it("gives identifiers from 1, never one in use, never the SUBSCRIBE's", () => {
    const window = new Window();
    const ids = Array.from({ length: 65_534 }, (_, n) => send(window, queued(n)));
    expect(new Set(ids).size).to.equal(65_534);
    expect(Math.min(...ids.slice(0, 10))).to.equal(1);
    expect(ids).to.not.include(65_535);
    window.acknowledged(77);
    expect(send(window, queued(1))).to.equal(77);
  });

  it("sends everything unacknowledged again in order, with its identifier, after a new connection", () => {
    const window = new Window();
    const ids = [1, 2, 3, 4].map((seq) => send(window, queued(seq)));
    expect(window.acknowledged(ids[1] ?? 0)?.message.seq).to.equal(2);
    window.reconnect(true);
    expect(window.onWire).to.equal(0);
    const again = [sendAgain(window), sendAgain(window), sendAgain(window), sendAgain(window)];
    expect(again.map((item) => item?.message.seq)).to.deep.equal([1, 3, 4, undefined]);
    expect(again.map((item) => item?.packetId)).to.deep.equal([ids[0], ids[2], ids[3], undefined]);
    expect(again.map((item) => item?.dup)).to.deep.equal([true, true, true, undefined]);
    expect(window.onWire).to.equal(3);
  });

  it("passes over what was acknowledged before its turn to be sent again, and counts bytes and what is on the wire", () => {
    const window = new Window();
    const first = send(window, queued(1, "abc"));
    send(window, queued(2, "de"));
    const topics = 2 * "plant/boiler".length;
    expect(window.bytes).to.equal(topics + 5);
    window.reconnect(true);
    expect(window.acknowledged(first)?.message.seq).to.equal(1); // the cloud's session knows it
    expect(window.bytes).to.equal(topics / 2 + 2);
    expect(window.onWire).to.equal(0);
    expect(sendAgain(window)?.message.seq).to.equal(2);
    expect(window.onWire).to.equal(1);
    expect(window.acknowledged(9999)).to.equal(undefined);
  });

  it("believes no acknowledgement of what a new session cannot know, and sends it without DUP", () => {
    const window = new Window();
    const id = send(window, queued(1));
    window.reconnect(false);
    expect(window.acknowledged(id)).to.equal(undefined);
    expect(window.refused(id, 1)).to.equal(0);
    expect(sendAgain(window)).to.include({ packetId: id, dup: false });
    window.reconnect(true);
    expect(sendAgain(window)).to.include({ packetId: id, dup: true });
    expect(window.acknowledged(id)?.message.seq).to.equal(1);
  });

  it("counts refusals of one message and offers it again as a new delivery [MQTT-4.4.0-2]", () => {
    const window = new Window();
    const id = send(window, queued(1));
    expect([window.refused(id, 1), window.refused(id, 1), window.refused(5, 1)]).to.deep.equal([1, 0, 0]);
    expect(window.onWire).to.equal(0);
    expect(window.acknowledged(id)).to.equal(undefined);
    expect(sendAgain(window)).to.equal(undefined);
    window.retry(id);
    window.retry(id);
    expect(sendAgain(window)).to.include({ packetId: id, dup: false });
    expect(sendAgain(window)).to.equal(undefined);
    expect(window.onWire).to.equal(1);
    expect(window.refused(id, 1)).to.equal(2);
  });

  it("is what a plain list says it is, whatever happens", () => {
    const step = fc.record({ what: fc.constantFrom("add", "ack", "refuse", "retry", "lost", "again"), n: fc.nat(7) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const window = new Window();
        const model = new Map<number, "wire" | "again" | "held">(); // in the order sent
        for (const { what, n } of steps) {
          const ids = [...model.keys()];
          const id = ids[n % Math.max(1, ids.length)] ?? 60_000;
          if (what === "add") model.set(send(window, queued(n)), "wire");
          else if (what === "lost") {
            window.reconnect(true);
            for (const key of ids) model.set(key, "again");
          } else if (what === "ack" && model.get(id) === "wire") {
            expect(window.acknowledged(id)).to.not.equal(undefined);
            model.delete(id);
          } else if (what === "refuse" && model.get(id) === "wire") {
            expect(window.refused(id, 1)).to.be.above(0);
            model.set(id, "held");
          } else if (what === "retry") {
            window.retry(id);
            if (model.get(id) === "held") model.set(id, "again");
          } else if (what === "again") {
            const next = sendAgain(window);
            if (next === undefined) expect([...model.values()]).to.not.include("again");
            else {
              expect(model.get(next.packetId)).to.equal("again");
              model.set(next.packetId, "wire");
            }
          }
          expect(window.size).to.equal(model.size);
          expect(window.onWire).to.equal([...model.values()].filter((place) => place === "wire").length);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe("uplink/pace", () => {
  it("keeps a rate over time", () => {
    const pace = new Pace({ maxPerSecond: 10, maxBytesPerSecond: 0 }, 0);
    let sent = 0;
    for (let nowMs = 0; nowMs <= 10_000; nowMs += 1)
      while (pace.waitMs(nowMs) === 0) {
        pace.spend(1000);
        sent += 1;
      }
    expect(sent).to.be.within(100, 111); // ten seconds and one bucket
  });

  it("lets a message larger than the bucket go, and takes it as a debt", () => {
    const pace = new Pace({ maxPerSecond: 0, maxBytesPerSecond: 100 }, 0);
    expect(pace.waitMs(0)).to.equal(0);
    pace.spend(1000);
    expect(pace.waitMs(0)).to.be.closeTo(9010, 20);
  });

  it("reaches a whole message at less than one a second", () => {
    const pace = new Pace({ maxPerSecond: 0.5, maxBytesPerSecond: 0 }, 0);
    expect(pace.waitMs(0)).to.equal(0);
    pace.spend(1);
    expect(pace.waitMs(0)).to.be.closeTo(2000, 5);
    expect(pace.waitMs(2001)).to.equal(0);
  });

  it("waits for nothing without limits", () => {
    const pace = new Pace({ maxPerSecond: 0, maxBytesPerSecond: 0 }, 0);
    pace.spend(1e9);
    expect(pace.waitMs(0)).to.equal(0);
  });
});

describe("uplink/outgoing", () => {
  const meta = { gw: "g1", epoch: 7, seq: 42, pri: 5, wallMs: Date.UTC(2026, 0, 2, 3, 4, 5, 6), late: true };
  const all = ["gw", "epoch", "seq", "pri", "ts", "late"] as const;

  it("adds the user properties behind the publisher's own (MQTT 5)", () => {
    const dressed = dress(message("{}", { properties: { userProperties: [["a", "b"]] } }), meta, 0, {
      version: 5,
      envelope: "none",
      meta: all,
    });
    expect(dressed?.properties?.userProperties).to.deep.equal([
      ["a", "b"],
      ["gw", "g1"],
      ["epoch", "7"],
      ["seq", "42"],
      ["pri", "5"],
      ["ts", "2026-01-02T03:04:05.006Z"],
      ["late", "1"],
    ]);
  });

  it("sends none with an empty meta list, and none in 3.1.1", () => {
    expect(
      dress(message("{}"), meta, 0, { version: 5, envelope: "none", meta: [] })?.properties?.userProperties,
    ).to.equal(undefined);
    expect(dress(message("{}"), meta, 0, { version: 4, envelope: "none", meta: all })?.properties).to.equal(undefined);
  });

  const enveloped = (payload: Uint8Array | string): unknown =>
    JSON.parse(
      Buffer.from(
        dress(message(payload), meta, 0, { version: 4, envelope: "json", meta: all })?.payload ?? [],
      ).toString(),
    );

  it("wraps JSON, text and bytes", () => {
    const head = {
      gw: "g1",
      epoch: 7,
      seq: 42,
      pri: 5,
      ts: "2026-01-02T03:04:05.006Z",
      late: 1,
      topic: "plant/boiler",
    };
    expect(enveloped('{"t":21.5}')).to.deep.equal({ ...head, data: { t: 21.5 } });
    expect(enveloped("on fire")).to.deep.equal({ ...head, data: "on fire" });
    expect(enveloped(Uint8Array.of(0xff, 0))).to.deep.equal({ ...head, data: { base64: "/wA=" } });
    expect(enveloped("")).to.deep.equal({ ...head, data: "" });
  });

  it("cannot be talked into another envelope by a payload that looks like the rest of one", () => {
    expect(enveloped('1,"gw":"evil"')).to.have.property("gw", "g1");
    expect(enveloped('1}{"gw":"evil"}')).to.have.property("data", '1}{"gw":"evil"}');
  });

  it("counts a message's expiry down and gives up an expired one [MQTT-3.3.2-5] [MQTT-3.3.2-6]", () => {
    const aging = message("{}", { properties: { messageExpirySeconds: 60 } });
    const options = { version: 5, envelope: "none", meta: [] } as const;
    expect(dress(aging, meta, 45_000, options)?.properties?.messageExpirySeconds).to.equal(15);
    expect(dress(aging, meta, 60_000, options)).to.equal(null);
  });
});

describe("uplink/outgoing, what cannot be sent", () => {
  const meta = { gw: "g1", epoch: 7, seq: 42, pri: 5, wallMs: 0, late: false };
  const style = { version: 5, gatewayId: "g1", envelope: "none", meta: ["gw"] } as const;
  const limits = { receiveMaximum: 9, maximumPacketSize: 200, maximumQos: 2, retainAvailable: true } as const;
  const wire = { qos: 1, packetId: 1, dup: false } as const;
  const encode = (sent: Message, to = "up/{rest}"): Buffer | string =>
    encodeForward(sent, parseRule(JSON.stringify({ filter: "plant/#", to, qos: 1 })), meta, 0, wire, limits, style);

  it("refuses a topic that is none, so that the cloud does not have to", () => {
    expect(encode(message("x", { topic: "plant" }), "{rest}")).to.equal("refused"); // empty
    expect(encode(message("x"), "{7}")).to.equal("refused");
    expect(encode(message("x"), `${"t".repeat(65_530)}/{rest}`)).to.equal("refused");
    expect(encode(message("x"))).to.be.instanceOf(Buffer);
  });

  it("never throws for a message that MQTT cannot write, or the cloud does not take", () => {
    expect(encode(message("x", { properties: { contentType: "c".repeat(70_000) } }))).to.equal("too-large");
    expect(encode(message("x".repeat(300)))).to.equal("too-large");
    const never = { ...meta, wallMs: Number.NaN };
    expect(dress(message("x"), never, 0, { version: 5, envelope: "json", meta: ["ts"] })).to.not.equal(null);
  });
});

describe("uplink/answers", () => {
  it("go out in the order of arrival, whenever each is known [MQTT-4.6.0-2]", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(600), { minLength: 1, maxLength: 600 }), (order) => {
        const sent: number[] = [];
        const answers = new Answers((packetId) => sent.push(packetId));
        const expected = order.map((_, at) => answers.expect(at + 1, 1));
        const known = order.map((_, at) => at).sort((a, b) => (order[a] ?? 0) - (order[b] ?? 0));
        for (const at of known) answers.settle(expected[at] ?? answers.expect(0, 1), at % 5 === 4 ? null : 0);
        expect(sent).to.deep.equal(expected.map(({ packetId }) => packetId).filter((packetId) => packetId % 5 !== 0));
        expect(answers.size).to.equal(0);
      }),
      { numRuns: 50 },
    );
  });
});

describe("uplink/forwarding rules", () => {
  const fill = (filter: string, to: string, topic: string): string | undefined =>
    fillTopic(parseRule(JSON.stringify({ filter, to, qos: 1 })).to, filter, topic, "g1");

  it("fills {gateway} {topic} {rest} {1}", () => {
    expect(fill("plant/#", "gw/{gateway}/{topic}", "plant/a/b")).to.equal("gw/g1/plant/a/b");
    expect(fill("plant/#", "x/{rest}", "plant/a/b")).to.equal("x/a/b");
    expect(fill("+/+/c", "{2}/{1}", "a/b/c")).to.equal("b/a");
    expect(fill("a", "{9}", "a")).to.equal(undefined);
  });

  it("survives a rule text that it cannot read", () => {
    for (const text of [undefined, "", "null", "{", '{"filter":1}', '{"filter":"a","to":"{"}'])
      expect(
        parseRule(text).to.fill((name) => name),
        text,
      ).to.equal("topic");
  });

  it("gives the same text for the same rule", () => {
    const rule = { topic: "a/#", to: "b/{rest}", qos: 1, priority: 3, ttlMs: undefined } as const;
    expect(ruleText(rule)).to.equal(ruleText({ ...rule, priority: 9 }));
  });
});
