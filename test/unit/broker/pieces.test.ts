import { expect } from "chai";
import fc from "fast-check";
import { Pieces } from "../../../src/broker/pieces.ts";

type Kind = "range" | "id" | "puback" | "pubrec";
/** Each `count` times, the packets side by side with ids that count up, as 1 does after 65,535. */
type Step = { kind: Kind; length: number; id: number; count: number; goesOn: boolean; atOnce: boolean };

const steps = fc.array(
  fc.record<Step>({
    kind: fc.constantFrom("range", "id", "puback", "pubrec"),
    length: fc.oneof(fc.constant(100), fc.integer({ min: 4, max: 300 })),
    id: fc.oneof(fc.integer({ min: 1, max: 65_535 }), fc.constantFrom(65_534, 1, 2)),
    count: fc.integer({ min: 1, max: 5 }),
    goesOn: fc.boolean(),
    atOnce: fc.boolean(),
  }),
  { maxLength: 40 },
);

describe("what one write is made of", () => {
  const source = Buffer.from(Array.from({ length: 80_000 }, (_, at) => at % 251));

  /** Adds them, and returns the bytes that they are. */
  function addAll(pieces: Pieces, all: readonly Step[]): Buffer {
    const bytes: Buffer[] = [];
    let at = 0;
    for (const { kind, length, id: first, count, goesOn, atOnce } of all) {
      if (!goesOn) at += 1;
      const run = atOnce && first + count <= 65_536 && kind !== "range"; // ids that count up
      if (run && kind === "id") pieces.append(source, at, at + count * length, 2, first, count);
      else if (run) pieces.appendAck(kind === "puback" ? 0x40 : 0x50, first, count);
      for (let n = 0, id = first; n < count; n += 1, id = 1 + (id % 65_535)) {
        if (kind === "puback" || kind === "pubrec") {
          const byte = kind === "puback" ? 0x40 : 0x50;
          if (!run) pieces.appendAck(byte, id);
          bytes.push(Buffer.from([byte, 2, id >> 8, id & 0xff]));
          continue;
        }
        const part = Buffer.from(source.subarray(at, at + length));
        if (kind === "id") {
          part.writeUInt16BE(id, 2);
          if (!run) pieces.append(source, at, at + length, 2, id);
        } else pieces.append(source, at, at + length);
        bytes.push(part);
        at += length;
      }
    }
    return Buffer.concat(bytes);
  }

  it("is joined in order, each packet with its own id, and as often as it is lent", () => {
    const pieces = new Pieces();
    fc.assert(
      fc.property(steps, (all) => {
        const expected = addAll(pieces, all);
        const out = pieces.whole() ?? Buffer.alloc(expected.length);
        pieces.joinInto(out.buffer === source.buffer ? Buffer.alloc(expected.length) : out);
        expect(out.equals(expected)).to.equal(true);
        pieces.forget();
        expect(pieces.whole()).to.equal(undefined);
      }),
    );
  });

  it("is one piece where ranges go on, which goes out as it is; a small part of a large buffer does not", () => {
    const pieces = new Pieces();
    expect(pieces.append(source, 0, 10_000)).to.equal(true);
    expect(pieces.append(source, 10_000, source.length)).to.equal(false);
    expect(pieces.whole()).to.equal(source);
    pieces.forget();
    pieces.append(source, 0, 10);
    expect(pieces.whole()).to.equal(undefined);
    pieces.forget();
    pieces.append(source, 0, source.length, 2, 7);
    expect(pieces.whole()).to.equal(undefined);
  });

  it("is one piece where packets of one size follow on each other with ids that do so too, and acknowledgements", () => {
    const added = (all: ReadonlyArray<readonly [start: number, end: number, idAt: number, id: number]>): boolean[] => {
      const pieces = new Pieces();
      return all.map(([start, end, idAt, id]) => pieces.append(source, start, end, idAt, id));
    };
    expect(
      added([
        [0, 9, 2, 5],
        [9, 18, 2, 6],
        [18, 27, 2, 7],
      ]),
    ).to.deep.equal([true, false, false]);
    expect(
      added([
        [0, 9, 2, 65_535],
        [9, 18, 2, 1],
        [18, 27, 2, 2],
      ]),
    ).to.deep.equal([true, true, false]);
    expect(
      added([
        [0, 9, 2, 5],
        [9, 18, 2, 7],
      ]),
      "another id",
    ).to.deep.equal([true, true]);
    expect(
      added([
        [0, 9, 2, 5],
        [10, 19, 2, 6],
      ]),
      "a gap",
    ).to.deep.equal([true, true]);
    expect(
      added([
        [0, 9, 2, 5],
        [9, 19, 2, 6],
      ]),
      "another size",
    ).to.deep.equal([true, true]);
    expect(
      added([
        [0, 9, 2, 5],
        [9, 18, 3, 6],
      ]),
      "another topic",
    ).to.deep.equal([true, true]);
    expect(
      added([
        [0, 9, 2, 5],
        [9, 18, -1, 0],
      ]),
      "without an id",
    ).to.deep.equal([true, true]);
    const pieces = new Pieces();
    for (let id = 1; id <= 1000; id += 1) pieces.appendAck(0x40, id);
    expect(pieces.room).to.equal(1);
  });
});
