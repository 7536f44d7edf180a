import { expect } from "chai";
import fc from "fast-check";
import { Pieces } from "../../../src/broker/pieces.ts";

type Step = { kind: "range" | "id" | "ack" | "goes on"; length: number; id: number };

const steps = fc.array(
  fc.record<Step>({
    kind: fc.constantFrom("range", "id", "ack", "goes on"),
    length: fc.integer({ min: 4, max: 300 }),
    id: fc.integer({ min: 1, max: 65_535 }),
  }),
  { maxLength: 40 },
);

describe("what one write is made of", () => {
  const source = Buffer.from(Array.from({ length: 20_000 }, (_, at) => at % 251));

  /** Adds them, and returns the bytes that they are. */
  function addAll(pieces: Pieces, all: readonly Step[]): Buffer {
    const bytes: Buffer[] = [];
    let at = 0;
    for (const { kind, length, id } of all) {
      if (kind === "ack") {
        pieces.add(undefined, 0x40, 4, -1, id);
        bytes.push(Buffer.from([0x40, 2, id >> 8, id & 0xff]));
        continue;
      }
      if (kind !== "goes on") at += 1;
      const part = Buffer.from(source.subarray(at, at + length));
      if (kind === "id") {
        part.writeUInt16BE(id, 2);
        pieces.add(source, at, at + length, 2, id);
      } else pieces.append(source, at, at + length);
      bytes.push(part);
      at += length;
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
    expect(pieces.append(source, 10_000, 20_000)).to.equal(false);
    expect(pieces.whole()).to.equal(source);
    pieces.forget();
    pieces.append(source, 0, 10);
    expect(pieces.whole()).to.equal(undefined);
    pieces.forget();
    pieces.add(source, 0, source.length, 2, 7);
    expect(pieces.whole()).to.equal(undefined);
  });
});
