import { expect } from "chai";
import fc from "fast-check";
import type { Message, MessageProperties, Qos } from "../../../src/base/message.ts";
import { ByteReader, ByteWriter, FieldError } from "../../../src/journal/bytes.ts";
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
        new MessageEncoder().write(writer, message, position, acceptedAtMs % 2 ** 50, wallMs, given, numbers);
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

  it("of a message after others is what it would be alone, whether source and topic are the same or not", () => {
    const few = fc.constantFrom("", "a", "plant/1", "é".repeat(100), "x".repeat(300), "y".repeat(300));
    const similar = fc.record({
      topic: few,
      source: few,
      payload: bytes,
      qos: fc.constant(1 as const),
      retain: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(fc.tuple(similar, takers), { maxLength: 8 }), (messages) => {
        const encoder = new MessageEncoder();
        for (const [message, given] of messages) {
          const numbers = given.map((_, index) => ({ seq: 7 + index }));
          const [one, other] = [encoder, new MessageEncoder()].map((by) => {
            const writer = new ByteWriter(Buffer.alloc(messageBound(message, given.length)));
            by.write(writer, message, 99, 1000, 2000, given, numbers);
            return writer.buffer.toString("hex", 0, writer.at);
          });
          expect(one).to.equal(other);
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
