import { expect } from "chai";
import { createJsonCodec } from "../../../../src/transform/codecs/json.ts";
import { createCodecs } from "../../../../src/transform/codecs/registry.ts";
import { boiler, bytes, thrown } from "../support.ts";

const text = (value: string): Buffer => Buffer.from(value);

describe("transform/codecs/json", () => {
  const codec = createJsonCodec("json");

  it("decodes and encodes", () => {
    expect(codec.decode(text('{"a":[1,"ü",null]}'))).to.deep.equal({ a: [1, "ü", null] });
    expect(codec.decode(text("\ufeff1"))).to.equal(1);
    expect(Buffer.from(codec.encode({ a: "ü" })).toString()).to.equal('{"a":"ü"}');
  });

  it("refuses what is not JSON or not UTF-8, without quoting it", () => {
    for (const wrong of ["", "secret", "{'secret':1}", '{"secret":1', "[1,]", "NaN", "1 2"]) {
      const { message, cause } = thrown("TG_DECODE", () => codec.decode(text(wrong)));
      expect(`${message} ${cause}`).not.to.contain("secret");
    }
    for (const hex of ["22ff22", "22c08022", "22eda08022"]) thrown("TG_DECODE", () => codec.decode(bytes(hex)));
  });

  it("limits depth and size", () => {
    const nested = (levels: number): Buffer => text("[".repeat(levels) + "]".repeat(levels));
    expect(() => codec.decode(nested(64))).not.to.throw();
    thrown("TG_DECODE", () => codec.decode(nested(65)));
    thrown("TG_DECODE", () => codec.decode(nested(400_000)));
    thrown("TG_DECODE", () => codec.decode(text(`{"a":${'{"a":'.repeat(64)}1${"}".repeat(65)}`)));
    expect(codec.decode(text(`"\\"${"[".repeat(200)}"`))).to.equal(`"${"[".repeat(200)}`);
    thrown("TG_DECODE", () => createJsonCodec("json", { maxBytes: 2 }).decode(text("123")));
    expect(createJsonCodec("json", { maxDepth: 1 }).decode(text("[1]"))).to.deep.equal([1]);
    thrown("TG_DECODE", () => createJsonCodec("json", { maxDepth: 1 }).decode(text("[[]]")));
  });

  it("makes __proto__ an ordinary property", () => {
    const value = codec.decode(text('{"__proto__":{"polluted":1}}')) as Record<string, unknown>;
    expect(value["polluted"]).to.equal(undefined);
    expect(Object.getPrototypeOf(value)).to.equal(Object.prototype);
    expect(({} as Record<string, unknown>)["polluted"]).to.equal(undefined);
  });

  it("refuses to encode what JSON cannot hold", () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    for (const value of [undefined, 1n, cycle]) thrown("TG_DECODE", () => codec.encode(value));
  });
});

describe("transform/codecs/registry", () => {
  const codecs = createCodecs({
    ...boiler.codecs,
    line: { type: "text" },
    raw: { type: "hex" },
    small: { type: "cbor", maxBytes: 1 },
    flat: { type: "json", maxDepth: 1 },
  });

  it("has the built-in codecs and those of the config", () => {
    expect(codecs.names).to.have.members([
      "json",
      "cbor",
      "text",
      "hex",
      "boiler-status",
      "boiler-ack",
      "boiler-command",
      "line",
      "raw",
      "small",
      "flat",
    ]);
    expect(codecs.get("text")?.decode(text("käse"))).to.equal("käse");
    expect(codecs.get("hex")?.decode(bytes("00ff"))).to.equal("00ff");
    expect(codecs.get("hex")?.encode("00 FF")).to.deep.equal(bytes("00ff"));
    expect(codecs.get("text")?.encode(21.5)).to.deep.equal(text("21.5"));
    expect(codecs.get("nothing")).to.equal(undefined);
    expect(codecs.get("auto")).to.equal(undefined);
    thrown("TG_DECODE", () => codecs.get("small")?.decode(bytes("1818")));
    thrown("TG_DECODE", () => codecs.get("flat")?.decode(text("[[]]")));
    thrown("TG_DECODE", () => codecs.get("text")?.decode(bytes("ff")));
    thrown("TG_DECODE", () => codecs.get("text")?.encode({}));
    thrown("TG_DECODE", () => codecs.get("hex")?.encode("abc"));
  });

  it("refuses a codec named like a built-in one", () => {
    for (const name of ["json", "auto"]) thrown("TG_CONFIG", () => createCodecs({ [name]: { type: "text" } }));
  });

  it("names the codec and field of a wrong definition", () => {
    const wrong = () =>
      createCodecs({ pump: { type: "struct", endian: "big", fields: [{ name: "x", type: "u8", scale: 0 }] } });
    expect(thrown("TG_CONFIG", wrong).message).to.contain("pump: field x");
  });

  it("goes by the content format", () => {
    expect(codecs.auto(0)?.decode(text("1"))).to.equal("1");
    expect(codecs.auto(42)?.decode(text("1"))).to.equal("31");
    expect(codecs.auto(50)?.decode(text("1"))).to.equal(1);
    expect(codecs.auto(60)?.decode(bytes("01"))).to.equal(1);
    expect(codecs.auto(41)).to.equal(undefined);
  });

  it("without one takes JSON, else text; broken JSON and bytes are refused", () => {
    const codec = codecs.auto(undefined);
    expect(codec?.decode(text('{"a":1}'))).to.deep.equal({ a: 1 });
    expect(codec?.decode(text("21.5"))).to.equal(21.5);
    expect(codec?.decode(text("open"))).to.equal("open");
    thrown("TG_DECODE", () => codec?.decode(text(' {"a":')));
    thrown("TG_DECODE", () => codec?.decode(bytes("a1616101ff")));
  });
});
