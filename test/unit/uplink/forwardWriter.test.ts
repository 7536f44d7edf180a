import { expect } from "chai";
import fc from "fast-check";
import { parser } from "mqtt-packet";
import type { QueuedMessage } from "../../../src/base/contracts.ts";
import type { Message } from "../../../src/base/message.ts";
import { parseRule } from "../../../src/uplink/forwarding.ts";
import { ForwardWriter } from "../../../src/uplink/forwardWriter.ts";
import type { MetaName } from "../../../src/uplink/options.ts";
import { encodeForward } from "../../../src/uplink/outgoing.ts";
import { TopicAliases } from "../../../src/uplink/topicAliases.ts";

const names: readonly MetaName[] = ["gw", "epoch", "seq", "pri", "ts", "late"];
const style = fc.record({
  version: fc.constantFrom(4 as const, 5 as const),
  gatewayId: fc.constantFrom("g1", "Gewächshaus-7", "x".repeat(300)),
  envelope: fc.constantFrom("none" as const, "none" as const, "json" as const),
  meta: fc.shuffledSubarray([...names]),
});
const text = fc.constantFrom("plant/a", "plant/ä/b", "plant", "plant/x/y/z", `plant/${"t".repeat(400)}`);
const rule = fc
  .constantFrom("{topic}", "up/{gateway}/{rest}", "{1}/{rest}", "{2}", "fixed")
  .map((to) => parseRule(JSON.stringify({ filter: "plant/#", to, qos: 1 })));
const message = fc.record({
  topic: text,
  payload: fc.oneof({ weight: 9, arbitrary: fc.uint8Array({ maxLength: 300 }) }, fc.constant(new Uint8Array(70_000))),
  qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
  retain: fc.boolean(),
  source: fc.constant("test"),
  properties: fc.option(fc.record({ messageExpirySeconds: fc.nat(100) }), { nil: undefined, freq: 4 }),
});
const one = fc.record({
  message,
  rule,
  seq: fc.oneof(fc.nat(), fc.maxSafeNat()),
  priority: fc.nat(9),
  wallMs: fc.oneof(
    fc.nat(),
    fc.integer({ min: 0, max: 4e12 }),
    fc.constantFrom(-5, Number.NaN, 1e15, 253_402_300_800_000),
  ),
  late: fc.boolean(),
  ageMs: fc.nat(200_000),
  wire: fc.record({
    qos: fc.constantFrom(0 as const, 1 as const),
    packetId: fc.integer({ min: 1, max: 65_535 }),
    dup: fc.boolean(),
  }),
});
const limits = fc.record({
  receiveMaximum: fc.constant(9),
  maximumPacketSize: fc.constantFrom(80, 500, 1e9),
  maximumQos: fc.constant(2 as const),
  retainAvailable: fc.boolean(),
});

const topicIn = (bytes: Buffer): string => bytes.subarray(...topicAt(bytes)).toString();

function topicAt(bytes: Buffer): [from: number, to: number] {
  let at = 1;
  while (bytes[at]! >= 0x80) at += 1;
  return [at + 3, at + 3 + bytes.readUInt16BE(at + 1)];
}

/** The cloud's end: keeps what aliases mean, and complains where the standard does. */
class AliasReader {
  readonly #maximum: number;
  readonly #topics = new Map<number, string>();

  constructor(maximum: number) {
    this.#maximum = maximum;
  }

  topicOf(bytes: Buffer, dup: boolean): string {
    let packet: { topic: string; properties?: { topicAlias?: number } } | undefined;
    const reader = parser({ protocolVersion: 5 });
    reader.on("packet", (read) => (packet = read as typeof packet));
    reader.parse(bytes);
    const topic = packet?.topic ?? "";
    const alias = packet?.properties?.topicAlias;
    if (dup) expect(alias, "a retransmission").to.equal(undefined);
    if (alias === undefined) return topic;
    expect(alias).to.be.within(1, this.#maximum);
    if (topic !== "") this.#topics.set(alias, topic);
    return this.#topics.get(alias) ?? "an alias that nobody has set";
  }
}

describe("uplink/forwardWriter", () => {
  it("writes the very bytes of encodeForward, message after message", () => {
    const run = fc.property(style, limits, fc.array(one, { minLength: 1, maxLength: 12 }), (how, takes, all) => {
      const writer = new ForwardWriter(how, 1_700_000_000_123);
      for (const { message: sent, seq, priority, wallMs, late, ageMs, wire: chosen, rule: by } of all) {
        const wire = { ...chosen, packetId: chosen.qos === 0 ? 0 : chosen.packetId };
        const { properties, ...plain } = sent;
        const whole: Message = properties === undefined ? plain : { ...plain, properties };
        const queued: QueuedMessage = {
          ...{ position: 1, lane: 1, priority, seq, rule: 1, acceptedAtMs: 0, wallMs, message: whole },
        };
        const meta = { gw: how.gatewayId, epoch: 1_700_000_000_123, seq, pri: priority, wallMs, late };
        const wanted = encodeForward(whole, by, meta, ageMs, wire, takes, how);
        const got = writer.write(queued, by, late, wire, ageMs, takes);
        if (typeof wanted === "string") expect(got).to.equal(wanted);
        else expect(writer.buffer.subarray(0, Number(got)).toString("hex")).to.equal(wanted.toString("hex"));
      }
    });
    fc.assert(run, { numRuns: 400 });
  });

  it("the same with topic aliases, and a reader of mqtt-packet finds the topics that were meant", () => {
    const five = style.map((how) => ({ ...how, version: 5 as const }));
    const few = fc.record({ base: limits, maximum: fc.constantFrom(1, 2, 5, 65_535) });
    const run = fc.property(
      five,
      few,
      fc.array(one, { minLength: 1, maxLength: 40 }),
      (how, { base, maximum }, all) => {
        const [saved, same] = [{ value: 0 }, { value: 0 }];
        const takes = { ...base, aliases: new TopicAliases(maximum, saved) };
        const other = { ...base, aliases: new TopicAliases(maximum, same) };
        const writer = new ForwardWriter(how, 7);
        const reader = new AliasReader(maximum);
        let plainBytes = 0;
        let bytes = 0;
        for (const { message: sent, seq, priority, wallMs, late, ageMs, wire: chosen, rule: by } of all) {
          const wire = { ...chosen, packetId: chosen.qos === 0 ? 0 : chosen.packetId };
          const { properties, ...plain } = sent;
          const whole: Message = properties === undefined ? plain : { ...plain, properties };
          const queued = { position: 1, lane: 1, priority, seq, rule: 1, acceptedAtMs: 0, wallMs, message: whole };
          const meta = { gw: how.gatewayId, epoch: 7, seq, pri: priority, wallMs, late };
          const wanted = encodeForward(whole, by, meta, ageMs, wire, other, how);
          const got = writer.write(queued, by, late, wire, ageMs, takes);
          if (typeof wanted === "string") {
            expect(got).to.equal(wanted);
            continue;
          }
          const written = Buffer.from(writer.buffer.subarray(0, Number(got)));
          expect(written.toString("hex")).to.equal(wanted.toString("hex"));
          expect(written.length).to.be.at.most(base.maximumPacketSize);
          const named = encodeForward(whole, by, meta, ageMs, wire, base, how);
          if (typeof named === "string") continue; // only the alias makes it fit
          expect(reader.topicOf(written, wire.dup)).to.equal(topicIn(named));
          plainBytes += named.length;
          bytes += written.length;
          // A length field that grows or shrinks by a byte with it is not counted.
          expect(plainBytes - bytes - saved.value).to.be.within(-2 * all.length, 2 * all.length);
        }
        expect(saved).to.deep.equal(same);
      },
    );
    fc.assert(run, { numRuns: 300 });
  });

  it("does not keep the room of one large message", () => {
    const writer = new ForwardWriter({ version: 5, gatewayId: "g", envelope: "none", meta: [] }, 1);
    const by = parseRule(undefined);
    const takes = { receiveMaximum: 9, maximumPacketSize: 1e9, maximumQos: 2 as const, retainAvailable: true };
    const wire = { qos: 1 as const, packetId: 1, dup: false };
    const write = (bytes: number): void => {
      const sent: Message = { topic: "t", payload: new Uint8Array(bytes), qos: 1, retain: false, source: "s" };
      const queued = { position: 1, lane: 1, priority: 5, seq: 1, rule: 1, acceptedAtMs: 0, wallMs: 1, message: sent };
      writer.write(queued, by, false, wire, 0, takes);
    };
    write(1_000_000);
    expect(writer.buffer.length).to.be.at.least(1_000_000);
    write(10);
    expect(writer.buffer.length).to.equal(4096);
  });
});
