import { expect } from "chai";
import { cobs } from "../../../../src/wire/frame/cobs.ts";
import { type Delimiter, malformed } from "../../../../src/wire/frame/delimiter.ts";
import { lines } from "../../../../src/wire/frame/lines.ts";
import { slip } from "../../../../src/wire/frame/slip.ts";

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const hexOf = (data: Uint8Array): string => Buffer.from(data).toString("hex");
const run = (from: number, to: number): string =>
  hexOf(Uint8Array.from({ length: to - from + 1 }, (_, at) => (from + at) & 0xff));

function decode(codec: Delimiter, hex: string): string | "malformed" {
  const raw = bytes(hex);
  const out = new Uint8Array(raw.length);
  const length = codec.decode(raw, 0, raw.length, out);
  return length === malformed ? "malformed" : hexOf(out.subarray(0, length));
}

describe("COBS", () => {
  // The examples of the paper and of the Wikipedia article, which go through every kind of block end.
  const vectors: ReadonlyArray<readonly [name: string, plain: string, wire: string]> = [
    ["nothing", "", "01 00"],
    ["one zero", "00", "01 01 00"],
    ["two zeros", "0000", "01 01 01 00"],
    ["a zero in between", "00 11 00", "01 02 11 01 00"],
    ["a block and a zero", "11 22 00 33", "03 11 22 02 33 00"],
    ["no zero", "11 22 33 44", "05 11 22 33 44 00"],
    ["zeros at the end", "11 00 00 00", "02 11 01 01 01 00"],
    ["254 bytes without a zero", run(1, 254), `ff ${run(1, 254)} 00`],
    ["a zero and 254 bytes", `00 ${run(1, 254)}`, `01 ff ${run(1, 254)} 00`],
    ["255 bytes without a zero", run(1, 255), `ff ${run(1, 254)} 02 ff 00`],
    ["254 bytes and a zero", `${run(2, 255)} 00`, `ff ${run(2, 255)} 01 01 00`],
    ["253 bytes, a zero, one more", `${run(3, 255)} 00 01`, `fe ${run(3, 255)} 02 01 00`],
  ];
  for (const [name, plain, wire] of vectors) {
    it(`encodes and decodes ${name}`, () => {
      expect(hexOf(cobs.encode(bytes(plain)))).to.equal(wire.replaceAll(" ", ""));
      expect(decode(cobs, wire.slice(0, -2))).to.equal(plain.replaceAll(" ", ""));
    });
  }

  it("accepts a closing empty block after 254 bytes, as some encoders send it", () => {
    expect(decode(cobs, `ff ${run(1, 254)} 01`)).to.equal(run(1, 254));
  });

  it("refuses a code that points past the end, or zero", () => {
    expect(decode(cobs, "05 11 22 33")).to.equal("malformed");
    expect(decode(cobs, "02")).to.equal("malformed");
    expect(decode(cobs, "02 11 00 11")).to.equal("malformed");
  });

  it("puts a delimiter in front when asked", () => {
    expect(hexOf(cobs.encode(bytes("11 00"), { leading: true }))).to.equal("0002110100");
  });
});

describe("SLIP", () => {
  it("escapes END and ESC as RFC 1055 says", () => {
    expect(hexOf(slip.encode(bytes("01 c0 02 db 03")))).to.equal("01dbdc02dbdd03c0");
    expect(decode(slip, "01 db dc 02 db dd 03")).to.equal("01c002db03");
  });

  it("leaves DC and DD alone", () => {
    expect(hexOf(slip.encode(bytes("dc dd")))).to.equal("dcddc0");
    expect(decode(slip, "dc dd")).to.equal("dcdd");
  });

  it("refuses an escape before anything else, and one at the end", () => {
    expect(decode(slip, "01 db 41 02")).to.equal("malformed");
    expect(decode(slip, "db db dc")).to.equal("malformed");
    expect(decode(slip, "01 db")).to.equal("malformed");
    // what lies behind the end belongs to another frame
    expect(slip.decode(bytes("01 db dc"), 0, 2, new Uint8Array(3))).to.equal(malformed);
  });

  it("puts an END in front when asked", () => {
    expect(hexOf(slip.encode(bytes("01"), { leading: true }))).to.equal("c001c0");
  });
});

describe("lines", () => {
  it("strips one CR before the LF and keeps any other", () => {
    expect(decode(lines, hexOf(Buffer.from("a\rb\r\r")))).to.equal(hexOf(Buffer.from("a\rb\r")));
  });

  it("appends LF", () => {
    expect(Buffer.from(lines.encode(Buffer.from("set 5"))).toString()).to.equal("set 5\n");
    expect(Buffer.from(lines.encode(Buffer.from("set 5"), { leading: true })).toString()).to.equal("\nset 5\n");
  });

  it("refuses to send two lines as one frame", () => {
    expect(() => lines.encode(Buffer.from("set 5\nreset"))).to.throw(RangeError);
  });
});
