import { expect } from "chai";
import fc from "fast-check";
import { countAckRun } from "../../../../src/wire/mqtt/ack.ts";
import { FrameScanner } from "../../../../src/wire/mqtt/frameScanner.ts";
import { countPublishRun, encodePublish, newPublishView, scanPublish } from "../../../../src/wire/mqtt/publish.ts";

const ack = (first: number, id: number): Buffer => Buffer.from([first, 2, id >> 8, id & 0xff]);
const acks = (first: number, ...ids: number[]): Buffer => Buffer.concat(ids.map((id) => ack(first, id)));

describe("acknowledgements that follow on each other", () => {
  const count = (bytes: Buffer, most = 100): number => countAckRun(bytes, 0, bytes.length, most);

  it("are counted up to another kind, another id, a longer one, and the end", () => {
    expect(count(acks(0x40, 1, 2, 3, 4))).to.equal(4);
    expect(count(acks(0x40, 255, 256, 257))).to.equal(3);
    expect(count(acks(0x40, 1, 2, 4))).to.equal(2);
    expect(count(acks(0x40, 1, 1))).to.equal(1);
    expect(count(Buffer.concat([acks(0x62, 1, 2), acks(0x70, 3)]))).to.equal(2);
    expect(count(Buffer.concat([acks(0x40, 1), Buffer.from([0x40, 3, 0, 2, 0])]))).to.equal(1);
    expect(count(acks(0x40, 1, 2, 3).subarray(0, 11))).to.equal(2);
    expect(count(acks(0x40, 1, 2, 3), 2)).to.equal(2);
    expect(count(acks(0x40, 1, 2), 0), "the first one is there").to.equal(1);
  });

  it("end at 65,535: no packet has the id after it, and 0 is none", () => {
    expect(count(acks(0x40, 65_534, 65_535, 0, 1))).to.equal(2);
    expect(count(acks(0x40, 65_534, 65_535, 1, 2))).to.equal(2);
  });
});

describe("PUBLISH that follow on each other", () => {
  const packet = fc.record({
    topic: fc.constantFrom("a/b/1", "a/b/1", "a/b/2", "a/b/11"),
    qos: fc.constantFrom<0 | 1 | 2>(0, 1),
    packetId: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 65_535 })), // 0: the next one
    dup: fc.nat(9).map((n) => n === 0),
    payload: fc.constantFrom("x", "y", "long"),
    expires: fc.nat(9).map((n) => n === 0),
  });

  for (const version of [4, 5] as const) {
    it(`are counted as long as a look at each would find them alike, MQTT ${version}`, () => {
      fc.assert(
        fc.property(fc.array(packet, { minLength: 1, maxLength: 8 }), fc.nat(8), fc.nat(3), (all, most, missing) => {
          let id = 65_532;
          const frames = all.map(({ topic, qos, packetId, dup, payload, expires }) => {
            id = packetId === 0 ? 1 + (id % 65_535) : packetId;
            const properties = expires && version === 5 ? { messageExpirySeconds: 9 } : undefined;
            return encodePublish(
              {
                ...{ kind: "publish", topic, qos, dup: dup && qos > 0, retain: false, packetId: id },
                ...{ payload: Buffer.from(payload), properties },
              },
              version,
            );
          });
          const bytes = Buffer.concat(frames);
          const limit = bytes.length - missing;
          const view = newPublishView();
          const first = frames[0]!;
          if (first.length > limit || !scanPublish(bytes, first[0]!, 2, first.length, version, view)) return;
          const found = countPublishRun(bytes, 0, first.length, limit, view, version, most);
          const { qos, packetId, topicEnd } = view;

          let expected = 1;
          const next = newPublishView();
          for (let at = first.length; expected < most; at += first.length, expected += 1) {
            const frame = frames[expected];
            if (frame?.length !== first.length || at + frame.length > limit) break;
            if (!frame.subarray(0, topicEnd).equals(first.subarray(0, topicEnd))) break;
            if (!scanPublish(frame, frame[0]!, 2, frame.length, version, next)) break;
            if (qos > 0 && next.packetId !== packetId + expected) break;
          }
          expect(found).to.equal(expected);
        }),
        { numRuns: 500 },
      );
    });
  }
});

describe("a scanner that is told what was looked at", () => {
  it("goes on behind it; behind a packet that came in parts nothing can be looked at", () => {
    const scanner = new FrameScanner(1000);
    const bytes = acks(0x40, 1, 2, 3, 4, 5);
    scanner.push(bytes.subarray(0, 2));
    expect(scanner.next()).to.equal(false);
    scanner.push(bytes.subarray(2));
    expect(scanner.next()).to.equal(true);
    expect([scanner.end - scanner.start, scanner.limit - scanner.start]).to.deep.equal([4, 4]);
    expect(scanner.next()).to.equal(true);
    expect(scanner.limit - scanner.start).to.equal(16);
    scanner.skipTo(scanner.start + 12);
    expect(scanner.next()).to.equal(true);
    expect(scanner.buffer.readUInt16BE(scanner.body)).to.equal(5);
    expect(scanner.next()).to.equal(false);
  });
});
