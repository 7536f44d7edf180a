import { expect } from "chai";
import fc from "fast-check";
import type { Message, MessageProperties, Qos } from "../../../src/base/message.ts";
import { ByteReader, ByteWriter, dataViewOf, FieldError } from "../../../src/journal/bytes.ts";
import { MessageEncoder, MessageReader, messageBound, messageFlags } from "../../../src/journal/messageRecord.ts";

const text = fc.string({ unit: "grapheme", maxLength: 200 });
const bytes = fc.uint8Array({ maxLength: 300 });
const properties: fc.Arbitrary<MessageProperties> = fc.record(
  {
    payloadFormat: fc.constantFrom(0 as const, 1 as const),
    messageExpirySeconds: fc.nat(4294967295),
    contentType: text,
    responseTopic: text,
    correlationData: bytes,
    userProperties: fc.array(fc.tuple(text, text), { maxLength: 4 }),
  },
  { requiredKeys: [] },
);
const anyMessage: fc.Arbitrary<Message> = fc.record(
  { topic: text, payload: bytes, qos: fc.constantFrom<Qos>(0, 1, 2), retain: fc.boolean(), source: text, properties },
  { requiredKeys: ["topic", "payload", "qos", "retain", "source"] },
);
const big = fc.maxSafeNat();
const takers = fc.array(
  fc.record({ lane: fc.nat(200), rule: fc.nat(1e6), ttlMs: fc.option(fc.nat(1e12), { nil: undefined }) }),
  { maxLength: 5 },
);

const plain = (message: Message): unknown => ({
  ...message,
  payload: [...message.payload],
  properties: message.properties && {
    ...message.properties,
    correlationData: message.properties.correlationData && [...message.properties.correlationData],
  },
});

describe("journal: MESSAGE record", () => {
  it("comes back as it was, with every taker, within the promised size", () => {
    fc.assert(
      fc.property(anyMessage, takers, big, big, big, (message, given, position, acceptedAtMs, wallMs) => {
        const bound = messageBound(message, given.length);
        const writer = new ByteWriter(Buffer.alloc(bound + 100));
        const numbers = given.map((_, index) => ({ seq: 7 + index }));
        const encoder = new MessageEncoder();
        encoder.writeTakers(writer, position, acceptedAtMs % 2 ** 50, wallMs, given, numbers);
        encoder.writeMessage(writer, message);
        expect(writer.at).to.be.at.most(bound);
        const reader = new MessageReader();
        reader.start(writer.buffer, 0, writer.at, messageFlags(message));
        expect([reader.position, reader.acceptedAtMs, reader.wallMs]).to.deep.equal([
          position,
          acceptedAtMs % 2 ** 50,
          wallMs,
        ]);
        given.forEach((taker, index) => {
          expect(reader.nextTaker()).to.equal(true);
          const { lane, rule } = reader.taker;
          expect({ lane, rule, seq: reader.taker.seq }).to.deep.equal({
            lane: taker.lane,
            rule: taker.rule,
            seq: 7 + index,
          });
          const expiresAtMs = taker.ttlMs === undefined ? Number.POSITIVE_INFINITY : reader.acceptedAtMs + taker.ttlMs;
          expect(reader.taker.expiresAtMs).to.equal(expiresAtMs);
        });
        expect(reader.nextTaker()).to.equal(false);
        expect(plain(reader.message())).to.deep.equal(plain(message));
      }),
      { numRuns: 300 },
    );
  });

  it("is the same after others as alone, and the same for a payload that lies in a larger buffer", () => {
    const few = fc.constantFrom("", "a", "plant/1", "é".repeat(100), "x".repeat(300), "y".repeat(300));
    const plainOnes = fc.record({ topic: few, source: few, payload: fc.uint8Array({ maxLength: 600 }) });
    fc.assert(
      fc.property(fc.array(fc.tuple(plainOnes, takers, fc.nat(20)), { maxLength: 8 }), (messages) => {
        const encoders = [new MessageEncoder(), new MessageEncoder()];
        for (const [of, given, from] of messages) {
          const { topic, source, payload } = of;
          const larger = Buffer.concat([Buffer.alloc(from, 1), payload, Buffer.alloc(3, 2)]);
          const plain = { topic, source, qos: 1 as const, bytes: dataViewOf(larger), from, to: from + payload.length };
          const written = [new MessageEncoder(), ...encoders].map((encoder, at) => {
            const writer = new ByteWriter(Buffer.alloc(messageBound({ ...of, qos: 1, retain: false }, given.length)));
            const numbers = given.map((_, index) => ({ seq: 7 + index }));
            encoder.writeTakers(writer, 2 ** 31 + from, 2 ** 40 + 127, 128, given, numbers);
            if (at === 2) encoder.writePlain(writer, plain);
            else encoder.writeMessage(writer, { ...of, qos: 1, retain: false });
            return writer.buffer.toString("hex", 0, writer.at);
          });
          expect(new Set(written).size).to.equal(1);
        }
      }),
    );
  });

  it("a record that is too short is a FieldError, never another error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(15), (junk, flags) => {
        const reader = new MessageReader();
        try {
          reader.start(Buffer.from(junk), 0, junk.length, flags);
          reader.findTaker(3);
          reader.message();
        } catch (error) {
          expect(error).to.be.instanceOf(FieldError);
        }
      }),
    );
  });

  it("uvarints keep every whole number up to 2^53 - 1", () => {
    fc.assert(
      fc.property(fc.array(big, { minLength: 1, maxLength: 20 }), (numbers) => {
        const writer = new ByteWriter(Buffer.alloc(numbers.length * 9));
        for (const number of numbers) writer.uvarint(number);
        const reader = new ByteReader(writer.buffer, 0, writer.at);
        expect(numbers.map(() => reader.uvarint())).to.deep.equal(numbers);
      }),
    );
    const edges = [0, 127, 128, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER];
    const writer = new ByteWriter(Buffer.alloc(100));
    for (const edge of edges) writer.uvarint(edge);
    const reader = new ByteReader(writer.buffer, 0, writer.at);
    expect(edges.map(() => reader.uvarint())).to.deep.equal(edges);
  });
});
