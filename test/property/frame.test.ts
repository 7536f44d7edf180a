import { expect } from "chai";
import fc from "fast-check";
import { crcNames } from "../../src/wire/frame/crc.ts";
import { createFramer, type Framer, type FramingOptions } from "../../src/wire/frame/framer.ts";

const maxFrameBytes = 600;

// Bytes that mean something to a framing come often, so that escapes, empty blocks and short frames do.
const byte = fc.oneof(fc.nat(255), fc.constantFrom(0x00, 0x01, 0x0a, 0x0d, 0xc0, 0xdb, 0xdc, 0xdd, 0xff));
const payload = fc.oneof(
  fc.array(byte, { minLength: 1, maxLength: 40 }),
  fc.array(byte, { minLength: 250, maxLength: 520 }),
  fc.tuple(fc.constantFrom(0x01, 0x00, 0xc0), fc.integer({ min: 250, max: 520 })).map(([value, length]) => {
    return new Array<number>(length).fill(value);
  }),
);
const binary: fc.Arbitrary<FramingOptions> = fc.record({
  type: fc.constantFrom("cobs" as const, "slip" as const),
  crc: fc.option(fc.constantFrom(...crcNames), { nil: undefined }),
  crcEndian: fc.constantFrom("little" as const, "big" as const),
  leading: fc.boolean(),
  maxFrameBytes: fc.constant(maxFrameBytes),
});
const lines: fc.Arbitrary<FramingOptions> = fc.constant({ type: "lines", maxFrameBytes });
const framing = fc.oneof({ weight: 3, arbitrary: binary }, { weight: 1, arbitrary: lines });
const cuts = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 20 });

/** Lines can carry anything but a line feed, and lose a carriage return at the end. */
const sendable = (type: FramingOptions["type"], body: number[]): Uint8Array =>
  Uint8Array.from(type === "lines" ? [...body.map((value) => (value === 0x0a ? 0x0b : value)), 0x2e] : body);

function read(framer: Framer, stream: Uint8Array, sizes: readonly number[]): string[] {
  const frames: string[] = [];
  for (let at = 0, n = 0; at < stream.length; n += 1) {
    const size = sizes[n % sizes.length] ?? 1;
    framer.push(stream.subarray(at, at + size), (frame) => frames.push(Buffer.from(frame).toString("hex")));
    at += size;
  }
  return frames;
}

const hexOf = (data: Uint8Array): string => Buffer.from(data).toString("hex");
const faults = (framer: Framer): number => Object.values(framer.counters).reduce((sum, count) => sum + count, 0);
const delimiterOf = { lines: 0x0a, cobs: 0x00, slip: 0xc0 } as const;

describe("frame codecs, for any input", () => {
  it("give back what was encoded, however the stream is cut", () => {
    fc.assert(
      fc.property(framing, fc.array(payload, { minLength: 1, maxLength: 5 }), cuts, (options, bodies, sizes) => {
        const framer = createFramer(options);
        const sent = bodies.map((body) => sendable(options.type, body));
        const stream = Buffer.concat(sent.map((body) => framer.encode(body)));
        expect(read(framer, stream, sizes)).to.deep.equal(sent.map(hexOf));
        expect(faults(framer)).to.equal(0);
      }),
      { numRuns: 300 },
    );
  });

  it("never throw on noise, hand out nothing longer than the limit, and give the same for any cutting", () => {
    fc.assert(
      fc.property(framing, fc.array(byte, { maxLength: 3000 }), cuts, cuts, (options, noise, sizes, otherSizes) => {
        const small = { ...options, maxFrameBytes: 20 };
        const framer = createFramer(small);
        const frames = read(framer, Uint8Array.from(noise), sizes);
        for (const frame of frames) expect(frame.length / 2).to.be.at.most(20);
        const other = createFramer(small);
        expect(read(other, Uint8Array.from(noise), otherSizes)).to.deep.equal(frames);
        expect(other.counters).to.deep.equal(framer.counters);
      }),
      { numRuns: 200 },
    );
  });

  it("find the next good frame after noise and a delimiter", () => {
    fc.assert(
      fc.property(framing, fc.array(byte, { maxLength: 2000 }), payload, cuts, (options, noise, body, sizes) => {
        const framer = createFramer(options);
        const sent = sendable(options.type, body);
        const stream = Buffer.concat([Uint8Array.from([...noise, delimiterOf[options.type]]), framer.encode(sent)]);
        expect(read(framer, stream, sizes).at(-1)).to.equal(hexOf(sent));
      }),
      { numRuns: 200 },
    );
  });

  it("account for everything between delimiters: a frame, a fault or nothing at all", () => {
    fc.assert(
      fc.property(binary, fc.array(byte, { maxLength: 2000 }), cuts, (options, noise, sizes) => {
        const framer = createFramer(options);
        const delimiter = delimiterOf[options.type];
        const stream = Buffer.from([...noise, delimiter]);
        const pieces = stream.toString("latin1").split(String.fromCharCode(delimiter));
        const some = pieces.filter((piece) => piece !== "").length;
        expect(read(framer, stream, sizes).length + faults(framer)).to.equal(some);
      }),
      { numRuns: 200 },
    );
  });

  // A bit may hit a code or delimiter byte and so shift whole blocks; against that a 32-bit checksum is certain enough for a random test.
  it("never deliver a frame with a flipped bit when it carries a checksum", () => {
    const options = fc.record({
      type: fc.constantFrom("cobs" as const, "slip" as const),
      crc: fc.constant("crc32" as const),
      leading: fc.boolean(),
    });
    fc.assert(
      fc.property(options, payload, fc.nat(), (framingOptions, body, where) => {
        const framer = createFramer(framingOptions);
        const sent = Uint8Array.from(body);
        const wire = Buffer.from(framer.encode(sent));
        const bit = where % (wire.length * 8);
        wire[bit >> 3]! ^= 1 << (bit & 7);
        // Only the delimiters themselves may be hit without harm to the payload.
        const frames = read(framer, Buffer.concat([wire, Uint8Array.of(delimiterOf[framingOptions.type])]), [17]);
        for (const frame of frames) expect(frame).to.equal(hexOf(sent));
      }),
      { numRuns: 300 },
    );
  });

  for (const type of ["cobs", "slip"] as const) {
    for (const crc of ["crc16-ccitt", "crc16-modbus", "crc16-xmodem", "crc16-kermit"] as const) {
      it(`${type} with ${crc}: no single flipped bit of a status frame gets through`, () => {
        const sent = Buffer.from("01000900c0db0a28e2ff0000", "hex");
        const framer = createFramer({ type, crc, leading: false });
        const wire = Buffer.from(framer.encode(sent));
        for (let bit = 0; bit < (wire.length - 1) * 8; bit += 1) {
          const hit = Buffer.from(wire);
          hit[bit >> 3]! ^= 1 << (bit & 7);
          expect(read(framer, hit, [hit.length])).to.deep.equal([]);
        }
        expect(read(framer, wire, [wire.length])).to.deep.equal([sent.toString("hex")]);
      });
    }
  }
});
