import { expect } from "chai";
import fc from "fast-check";
import {
  decodeDownlink,
  decodeReading,
  encodeDownlink,
  encodeReading,
  FrameReader,
  frameOf,
} from "../../../firmware-sim/codec/boiler.ts";
import { cobsDecode, cobsEncode } from "../../../firmware-sim/codec/cobs.ts";
import { crc16 } from "../../../firmware-sim/codec/crc16.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");
const range = (from: number, to: number): Buffer =>
  Buffer.from(Array.from({ length: to - from + 1 }, (_, at) => from + at));

describe("firmware-sim: COBS", () => {
  // Cheshire and Baker's own example, and the worked ones that every implementation is held to.
  const vectors: Array<[name: string, plain: Buffer, coded: Buffer]> = [
    ["nothing", hex(""), hex("01")],
    ["one zero", hex("00"), hex("01 01")],
    ["two zeros", hex("00 00"), hex("01 01 01")],
    ["a zero in the middle", hex("11 22 00 33"), hex("03 11 22 02 33")],
    ["no zero", hex("11 22 33 44"), hex("05 11 22 33 44")],
    ["zeros at the end", hex("11 00 00 00"), hex("02 11 01 01 01")],
    [
      "the paper's IP header",
      hex("45 00 00 2c 4c 79 00 00 40 06 4f 37"),
      hex("02 45 01 04 2c 4c 79 01 05 40 06 4f 37"),
    ],
    ["254 bytes without zero", range(1, 254), Buffer.concat([hex("ff"), range(1, 254)])],
    ["255 bytes without zero", range(1, 255), Buffer.concat([hex("ff"), range(1, 254), hex("02 ff")])],
    ["a zero, then 254", range(0, 254), Buffer.concat([hex("01 ff"), range(1, 254)])],
    [
      "254, then a zero",
      Buffer.concat([range(2, 255), hex("00")]),
      Buffer.concat([hex("ff"), range(2, 255), hex("01 01")]),
    ],
    [
      "253, a zero, one",
      Buffer.concat([range(3, 255), hex("00 01")]),
      Buffer.concat([hex("fe"), range(3, 255), hex("02 01")]),
    ],
  ];
  for (const [name, plain, coded] of vectors) {
    it(`encodes and decodes ${name}`, () => {
      expect(cobsEncode(plain).toString("hex")).to.equal(coded.toString("hex"));
      expect(cobsDecode(coded)?.toString("hex")).to.equal(plain.toString("hex"));
    });
  }

  it("gives back what it was given, without a zero on the way, at the promised cost", () => {
    const bytes = fc.uint8Array({ maxLength: 700 });
    fc.assert(
      fc.property(bytes, (plain) => {
        const coded = cobsEncode(plain);
        expect(coded.includes(0)).to.equal(false);
        expect(coded.length).to.be.at.most(plain.length + Math.floor(plain.length / 254) + 1);
        expect(cobsDecode(coded)?.equals(plain)).to.equal(true);
      }),
      { numRuns: 200 },
    );
  });

  it("refuses a frame that is cut or holds a zero", () => {
    expect(cobsDecode(hex("05 11 22 33"))).to.equal(undefined);
    expect(cobsDecode(hex("03 11 00 02 33"))).to.equal(undefined);
  });
});

describe("firmware-sim: CRC-16/CCITT-FALSE", () => {
  it("gives the catalogue's check values", () => {
    expect(crc16(Buffer.from("123456789"))).to.equal(0x29b1);
    expect(crc16(Buffer.alloc(0))).to.equal(0xffff);
    expect(crc16(Buffer.from("A"))).to.equal(0xb915);
  });
});

describe("firmware-sim: the boiler's frames", () => {
  const reading = { kind: 2, seq: 0x1234, temperature: -1050, pressure: 1_013_250, flags: 0b1011 } as const;

  it("packs a reading little-endian", () => {
    expect(encodeReading(reading).toString("hex")).to.equal("023412e6fb02760f000b");
    expect(decodeReading(encodeReading(reading))).to.deep.equal(reading);
  });

  it("knows ACK and command, and nothing else", () => {
    expect(encodeDownlink({ kind: "ack", seq: 0xfffe }).toString("hex")).to.equal("06feff");
    expect(encodeDownlink({ kind: "command", setpoint: -200 }).toString("hex")).to.equal("1038ff");
    expect(decodeDownlink(hex("06 fe ff"))).to.deep.equal({ kind: "ack", seq: 0xfffe });
    expect(decodeDownlink(hex("10 38 ff"))).to.deep.equal({ kind: "command", setpoint: -200 });
    expect(decodeDownlink(hex("07 00 00"))).to.equal(undefined);
    expect(decodeDownlink(hex("06 00"))).to.equal(undefined);
  });

  it("finds every frame however the stream is cut, garbage between frames or not", () => {
    const noise = fc.uint8Array({ maxLength: 20 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(noise, fc.nat(65_535)), { maxLength: 10 }),
        fc.integer({ min: 1, max: 40 }),
        (parts, cut) => {
          const wire = Buffer.concat(
            parts.flatMap(([garbage, seq]) => [garbage, frameOf(encodeReading({ ...reading, seq }))]),
          );
          const reader = new FrameReader();
          const found: number[] = [];
          for (let at = 0; at < wire.length; at += cut) {
            reader.push(wire.subarray(at, at + cut), (payload) => {
              if (payload.length === 10) found.push(payload.readUInt16LE(1));
            });
          }
          expect(found).to.deep.equal(parts.map(([, seq]) => seq));
        },
      ),
      { numRuns: 200 },
    );
  });

  it("drops what is longer than any frame, keeps nothing of it, and goes on", () => {
    const reader = new FrameReader(64);
    const found: Buffer[] = [];
    for (let chunk = 0; chunk < 100; chunk += 1) reader.push(Buffer.alloc(50, 0x55), (payload) => found.push(payload));
    reader.push(frameOf(encodeReading(reading)), (payload) => found.push(payload));
    expect(reader.bad).to.equal(1);
    expect(found).to.have.length(1);
  });

  it("notices every single flipped bit", () => {
    const frame = frameOf(encodeReading(reading));
    for (let bit = 8; bit < (frame.length - 1) * 8; bit += 1) {
      const flipped = Buffer.from(frame);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const found: Buffer[] = [];
      new FrameReader().push(flipped, (payload) => found.push(payload));
      expect(found, `bit ${bit}`).to.deep.equal([]);
    }
  });
});
