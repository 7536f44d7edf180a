import { expect } from "chai";
import { createCborCodec } from "../../../../src/transform/codecs/cbor.ts";
import { bytes, thrown, vectorFile } from "../support.ts";

type Row = [hex: string, value: unknown];

describe("transform/codecs/cbor", () => {
  const codec = createCborCodec("cbor");
  const file = vectorFile<{ vectors: Row[]; refused: [string, string][]; beyond: Row[] }>("cbor/appendix-a.json");

  for (const [hex, value] of [...file.vectors, ...file.beyond]) {
    it(`${hex} is ${JSON.stringify(value)}`, () => {
      const decoded = codec.decode(bytes(hex));
      expect(JSON.parse(JSON.stringify(decoded))).to.deep.equal(value);
      if (!Object.is(decoded, -0)) expect(decoded).to.deep.equal(value);
    });
  }

  for (const [hex, error] of file.refused) {
    it(`refuses ${hex}`, () => {
      expect(thrown("TG_DECODE", () => codec.decode(bytes(hex))).message).to.contain(error);
    });
  }

  for (const [hex, what] of vectorFile<{ vectors: [string, string][] }>("cbor/hostile.json").vectors) {
    it(`refuses ${what}: ${hex}`, () => {
      thrown("TG_DECODE", () => codec.decode(bytes(hex)));
    });
  }

  it("refuses a bignum of 128 KB at once", () => {
    const payload = Buffer.concat([bytes("c25a00020000"), Buffer.alloc(131_072, 0xff)]);
    const started = process.cpuUsage();
    expect(thrown("TG_DECODE", () => codec.decode(payload)).message).to.contain("tag 2 is not supported");
    const { user, system } = process.cpuUsage(started);
    expect((user + system) / 1000, "CPU ms").to.be.below(500); // decoding it takes 2.5 s
  });

  it("refuses deep nesting of arrays, maps and tags, and takes what is just allowed", () => {
    for (const level of ["81", "9f", "a100", "bf00", "d9d9f7", "c4"]) {
      expect(
        thrown("TG_DECODE", () => codec.decode(bytes(level.repeat(Math.floor(2_000_000 / level.length))))).message,
      ).to.match(/nested deeper|tag 4/);
    }
    const shallow = createCborCodec("cbor", { maxDepth: 3 });
    expect(shallow.decode(bytes("81818101"))).to.deep.equal([[[1]]]);
    thrown("TG_DECODE", () => shallow.decode(bytes("8181818101")));
  });

  it("refuses payloads above its limit", () => {
    const small = createCborCodec("cbor", { maxBytes: 3 });
    expect(small.decode(bytes("820102"))).to.deep.equal([1, 2]);
    expect(thrown("TG_DECODE", () => small.decode(bytes("83010203"))).message).to.contain("4 bytes, more than 3");
  });

  it("decodes a large array without losing the loop", () => {
    const payload = Buffer.concat([bytes("9a00040000"), Buffer.alloc(0x40000, 0x80)]);
    expect(codec.decode(payload)).to.have.length(0x40000);
  });

  it("does not touch the payload, nor keep it", () => {
    const payload = bytes("6449455446");
    expect(codec.decode(payload)).to.equal("IETF");
    expect(Object.hasOwn(payload, "dataView")).to.equal(false);
  });

  it("keeps prototypes clean", () => {
    const value = codec.decode(bytes("a1695f5f70726f746f5f5fa168706f6c6c7574656401")) as object;
    expect(Object.getPrototypeOf(value)).to.equal(Object.prototype);
    expect(({} as Record<string, unknown>)["polluted"]).to.equal(undefined);
    expect((value as Record<string, unknown>)["polluted"]).to.equal(undefined);
  });

  it("works after a refusal in the middle of an item", () => {
    thrown("TG_DECODE", () => codec.decode(bytes("c0626e6f")));
    expect(codec.decode(bytes("a1616101"))).to.deep.equal({ a: 1 });
  });

  it("encodes JSON values with short headers", () => {
    expect(Buffer.from(codec.encode({ a: [1, "x", null, true, -2, 1.5] })).toString("hex")).to.equal(
      "a1616186016178f6f521fb3ff8000000000000",
    );
    thrown("TG_DECODE", () => codec.encode(undefined));
  });
});
