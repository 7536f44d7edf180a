import { expect } from "chai";
import type { TidegateError } from "../../../../src/base/errors.ts";
import { createFramer, type Framer, type FramingOptions } from "../../../../src/wire/frame/framer.ts";

const noFaults = { badCrc: 0, malformed: 0, tooLong: 0, tooShort: 0 };

function framesOf(framer: Framer, ...chunks: Array<Uint8Array | string>): string[] {
  const frames: string[] = [];
  for (const chunk of chunks) {
    framer.push(typeof chunk === "string" ? Buffer.from(chunk, "latin1") : chunk, (payload) => {
      frames.push(Buffer.from(payload).toString("latin1"));
    });
  }
  return frames;
}

describe("framer", () => {
  it("finds lines over chunk borders, with LF and CRLF, and skips blank ones", () => {
    const framer = createFramer({ type: "lines" });
    expect(framesOf(framer, "one\r\ntw", "o\n\n\r", "\nthr", "ee", "\r", "\n")).to.deep.equal(["one", "two", "three"]);
    expect(framer.counters).to.deep.equal(noFaults);
  });

  it("puts the checksum behind the payload, little-endian unless told", () => {
    const payload = Buffer.from("123456789");
    const little = createFramer({ type: "slip", crc: "crc16-ccitt", leading: false });
    const big = createFramer({ type: "slip", crc: "crc16-ccitt", crcEndian: "big", leading: false });
    expect(Buffer.from(little.encode(payload)).toString("hex")).to.equal(`${payload.toString("hex")}b129c0`);
    expect(Buffer.from(big.encode(payload)).toString("hex")).to.equal(`${payload.toString("hex")}29b1c0`);
    expect(framesOf(big, big.encode(payload))).to.deep.equal(["123456789"]);
    expect(framesOf(big, little.encode(payload))).to.deep.equal([]);
    expect(big.counters).to.deep.equal({ ...noFaults, badCrc: 1 });
  });

  it("sends a crc32 whose top bit is set, and reads it", () => {
    const framer = createFramer({ type: "cobs", crc: "crc32" });
    const wire = framer.encode(Buffer.from("123456789"));
    expect(Buffer.from(wire).toString("hex")).to.contain("2639f4cb");
    expect(framesOf(framer, wire)).to.deep.equal(["123456789"]);
  });

  it("starts a SLIP frame with END by default, a COBS frame only when told", () => {
    expect(createFramer({ type: "slip" }).encode(Buffer.from("a"))[0]).to.equal(0xc0);
    expect(createFramer({ type: "cobs" }).encode(Buffer.from("a"))[0]).to.equal(2);
    expect(createFramer({ type: "cobs", leading: true }).encode(Buffer.from("a"))[0]).to.equal(0);
  });

  it("counts each fault under its reason and goes on with the next frame", () => {
    const framer = createFramer({ type: "slip", crc: "crc16-modbus", maxFrameBytes: 8 });
    const good = Buffer.from(framer.encode(Buffer.from("good"))).toString("latin1");
    const bad = good.replace("oo", "ox");
    expect(framesOf(framer, `${bad}${good}\xdbA\xc0${good}\x01\xc0${good}${"n".repeat(40)}\xc0${good}`)).to.have.length(
      4,
    );
    expect(framer.counters).to.deep.equal({ badCrc: 1, malformed: 1, tooShort: 1, tooLong: 1 });
  });

  it("takes exactly maxFrameBytes and refuses one more, whole or in pieces", () => {
    for (const options of [
      { type: "lines" },
      { type: "cobs" },
      { type: "slip" },
      { type: "cobs", crc: "crc32" },
    ] satisfies FramingOptions[]) {
      const framer = createFramer({ ...options, maxFrameBytes: 300 });
      const roomy = createFramer({ ...options, maxFrameBytes: 301 });
      // END, all of it escaped, is the longest a frame gets on the wire
      const fits = new Uint8Array(300).fill(0xc0);
      const tooLong = new Uint8Array(301).fill(0xc0);
      const wires = [framer.encode(fits), roomy.encode(tooLong), framer.encode(fits)];
      expect(framesOf(framer, ...wires)).to.have.length(2);
      expect(framesOf(framer, ...wires.flatMap((wire) => [...wire].map((byte) => Uint8Array.of(byte))))).to.have.length(
        2,
      );
      expect(framer.counters).to.deep.equal({ ...noFaults, tooLong: 2 });
      expect(() => framer.encode(tooLong)).to.throw(RangeError, "maxFrameBytes");
    }
  });

  it("counts endless noise without a delimiter once, and finds the frame after it", () => {
    const framer = createFramer({ type: "lines", maxFrameBytes: 64 });
    const noise = new Uint8Array(1000).fill(0x55);
    for (let n = 0; n < 100; n += 1) expect(framesOf(framer, noise)).to.deep.equal([]);
    expect(framer.counters.tooLong).to.equal(1);
    expect(framesOf(framer, "tail of it\nfine\n")).to.deep.equal(["fine"]);
    expect(framer.counters).to.deep.equal({ ...noFaults, tooLong: 1 });
  });

  it("hands out copies", () => {
    const framer = createFramer({ type: "lines" });
    const chunk = Buffer.from("one\ntwo\n");
    const frames: Uint8Array[] = [];
    framer.push(chunk, (payload) => frames.push(payload));
    chunk.fill(0);
    framer.push(Buffer.from("xxx\n"), () => {});
    expect(frames.map((frame) => Buffer.from(frame).toString())).to.deep.equal(["one", "two"]);
    expect(new Set(frames.map((frame) => frame.buffer)).size).to.equal(2);
    expect(frames[0]?.buffer.byteLength).to.equal(3);
  });

  it("forgets a frame begun, or one skipped, on reset, and keeps the counters", () => {
    const framer = createFramer({ type: "lines", maxFrameBytes: 4 });
    framesOf(framer, "ab");
    framer.reset();
    expect(framesOf(framer, "cd\n")).to.deep.equal(["cd"]);
    framesOf(framer, "much too long");
    framer.reset();
    expect(framesOf(framer, "ef\n")).to.deep.equal(["ef"]);
    expect(framer.counters.tooLong).to.equal(1);
  });

  it("goes on after a receiver that throws", () => {
    const framer = createFramer({ type: "lines" });
    framesOf(framer, "ha");
    expect(() =>
      framer.push(Buffer.from("lf\n"), () => {
        throw new Error("receiver");
      }),
    ).to.throw("receiver");
    expect(framesOf(framer, "next\n")).to.deep.equal(["next"]);
  });

  it("hands out an empty COBS packet, but no checksum of nothing", () => {
    expect(framesOf(createFramer({ type: "cobs" }), Uint8Array.of(1, 0, 0, 0))).to.deep.equal([""]);
    for (const type of ["cobs", "slip"] as const) {
      const framer = createFramer({ type, crc: "crc32" });
      expect(framesOf(framer, framer.encode(new Uint8Array()))).to.deep.equal([]);
      expect(framer.counters).to.deep.equal({ ...noFaults, tooShort: 1 });
    }
  });

  it("refuses options that cannot work", () => {
    const codes = (
      [
        { type: "lines", crc: "crc8" },
        { type: "cobs", maxFrameBytes: 0 },
        { type: "cobs", maxFrameBytes: 1.5 },
        { type: "cobs", maxFrameBytes: 2 ** 21 },
      ] satisfies FramingOptions[]
    ).map((options) => {
      try {
        createFramer(options);
        return "none";
      } catch (error) {
        return (error as TidegateError).code;
      }
    });
    expect(codes).to.deep.equal(new Array(4).fill("TG_CONFIG"));
  });
});
