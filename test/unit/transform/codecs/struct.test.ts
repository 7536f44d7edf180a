import { expect } from "chai";
import { createCodecs } from "../../../../src/transform/codecs/registry.ts";
import { StructCodec } from "../../../../src/transform/codecs/struct.ts";
import {
  describeStruct,
  type StructDefinition,
  type StructField,
} from "../../../../src/transform/codecs/structDefinition.ts";
import { boiler, bytes, thrown, vectorFile } from "../support.ts";

type TypeVector = { field: Omit<StructField, "name">; little: string; big: string; value: unknown; to?: string };

const struct = (fields: StructField[], more: Partial<StructDefinition> = {}): StructCodec =>
  new StructCodec("test", { type: "struct", endian: "little", fields, ...more });

describe("transform/codecs/struct", () => {
  const codecs = createCodecs(boiler.codecs);

  for (const { name, codec, hex, value } of boiler.vectors) {
    it(`decodes and encodes: ${name}`, () => {
      expect(codecs.get(codec)?.decode(bytes(hex))).to.deep.equal(value);
      expect(codecs.get(codec)?.encode(value)).to.deep.equal(bytes(hex));
      expect(JSON.parse(JSON.stringify(codecs.get(codec)?.decode(bytes(hex))))).to.deep.equal(value);
    });
  }

  for (const { name, codec, hex, error } of boiler.refused) {
    it(`refuses: ${name}`, () => {
      expect(thrown("TG_DECODE", () => codecs.get(codec)?.decode(bytes(hex))).message).to.equal(`${codec}: ${error}`);
    });
  }

  for (const { field, little, big, value, to } of vectorFile<{ vectors: TypeVector[] }>("struct/types.json").vectors) {
    it(`${JSON.stringify(field)}: ${little} is ${JSON.stringify(value)}`, () => {
      // Behind a byte and, where the length allows it, before one: a wrong offset would show.
      const tail: StructField[] = field.length === "rest" ? [] : [{ name: "after", type: "u8" }];
      for (const [endian, hex] of [
        ["little", little],
        ["big", big],
      ] as const) {
        const codec = struct([{ name: "before", type: "u8" }, { name: "v", ...field }, ...tail], { endian });
        const after = tail.length === 0 ? "" : "5a";
        const decoded = codec.decode(bytes(`a5${hex}${after}`));
        expect(decoded).to.deep.equal({ before: 0xa5, v: value, ...(after === "" ? {} : { after: 0x5a }) });
        const encoded = Buffer.from(codec.encode(decoded)).toString("hex");
        if (to === "nan") expect(codec.decode(bytes(encoded))["v"]).to.equal(null);
        else expect(encoded).to.equal(`a5${to ?? hex}${after}`);
      }
    });
  }

  it("reads fields of another byte order than the struct's", () => {
    const codec = struct([
      { name: "a", type: "u16" },
      { name: "b", type: "u16", endian: "big" },
    ]);
    expect(codec.decode(bytes("01000001"))).to.deep.equal({ a: 1, b: 1 });
  });

  it("ignores trailing bytes only when told to", () => {
    const fields: StructField[] = [{ name: "a", type: "u8" }];
    expect(struct(fields, { trailing: "ignore" }).decode(bytes("01ff"))).to.deep.equal({ a: 1 });
    thrown("TG_DECODE", () => struct(fields, { trailing: "error" }).decode(bytes("01ff")));
  });

  it("prints no noise of binary fractions for any raw value", () => {
    const codec = struct([{ name: "t", type: "i16", scale: 0.01 }]);
    for (let raw = -0x8000; raw <= 0x7fff; raw += 7) {
      const payload = Buffer.alloc(2);
      payload.writeInt16LE(raw);
      expect(JSON.stringify(codec.decode(payload)).length).to.be.at.most('{"t":-327.68}'.length);
      expect(codec.encode(codec.decode(payload))).to.deep.equal(payload);
    }
  });

  it("takes an acknowledgement's fields from a decoded reading", () => {
    const reading = codecs.get("boiler-status")?.decode(bytes("01 3412 6908 02760f00 09"));
    expect(codecs.get("boiler-ack")?.encode(reading)).to.deep.equal(bytes("06 3412"));
    expect(thrown("TG_DECODE", () => codecs.get("boiler-ack")?.encode({ kind: 6 })).message).to.contain(
      "field seq at offset 1: missing",
    );
  });

  it("does not take fields from a prototype", () => {
    thrown("TG_DECODE", () => struct([{ name: "a", type: "u8" }]).encode(Object.create({ a: 1 })));
    thrown("TG_DECODE", () => struct([{ name: "constructor", type: "string", length: 9 }]).encode({}));
  });

  const refusals: Array<[Omit<StructField, "name">, unknown]> = [
    [{ type: "u8" }, 256],
    [{ type: "u8" }, -1],
    [{ type: "u8" }, 1.5],
    [{ type: "u8" }, "1"],
    [{ type: "u8" }, null],
    [{ type: "i16", scale: 0.01 }, 327.68],
    [{ type: "i16", scale: 0.01 }, Number.NaN],
    [{ type: "u64" }, -1],
    [{ type: "u64" }, 2 ** 53],
    [{ type: "u64" }, "18446744073709551616"],
    [{ type: "i64" }, "9223372036854775808"],
    [{ type: "i64" }, "1e3"],
    [{ type: "u64", scale: 0.001 }, -1],
    [{ type: "f32" }, 3.5e38],
    [{ type: "f64" }, Number.POSITIVE_INFINITY],
    [{ type: "string", length: 2 }, "abc"],
    [{ type: "string", length: 4 }, "a\u0000b"],
    [{ type: "string", length: 4 }, "\ud800"],
    [{ type: "string", length: "rest" }, 1],
    [{ type: "bytes", length: 2 }, "ab"],
    [{ type: "bytes", length: 2 }, "abcdefgh"],
    [{ type: "bytes", length: 1 }, "zz"],
    [{ type: "u8", enum: { 1: "on" } }, "off"],
    [{ type: "u8", enum: { 1: "on" } }, 300],
    [{ type: "u8", bits: { a: 0 } }, 1],
    [{ type: "u8", bits: { a: 0 } }, {}],
    [{ type: "u8", bits: { a: 0 } }, { a: 2 }],
    [{ type: "u8", bits: { a: [0, 1] } }, { a: 4 }],
  ];
  for (const [field, value] of refusals) {
    it(`refuses to encode ${String(value)} as ${JSON.stringify(field)}`, () => {
      const codec = struct([{ name: "v", ...field }]);
      expect(thrown("TG_DECODE", () => codec.encode({ v: value })).message).to.contain("field v at offset 0");
    });
  }

  it("encodes an enum's unnamed number and 0 or 1 for a bit", () => {
    expect(struct([{ name: "v", type: "u8", enum: { 1: "on" } }]).encode({ v: 7 })).to.deep.equal(bytes("07"));
    expect(struct([{ name: "v", type: "u8", bits: { a: 7 } }]).encode({ v: { a: 1 } })).to.deep.equal(bytes("80"));
  });

  it("refuses text that is not UTF-8, naming the field", () => {
    const codec = struct([
      { name: "n", type: "u8" },
      { name: "v", type: "string", length: 2 },
    ]);
    expect(thrown("TG_DECODE", () => codec.decode(bytes("00ff41"))).message).to.contain("field v at offset 1");
  });

  const misdefined: Array<[string, StructField[], Partial<StructDefinition>?]> = [
    ["no fields", []],
    [
      "a name twice",
      [
        { name: "a", type: "u8" },
        { name: "a", type: "u8" },
      ],
    ],
    ["__proto__", [{ name: "__proto__", type: "u8" }]],
    ["a dot in a name", [{ name: "a.b", type: "u8" }]],
    ["an unknown type", [{ name: "a", type: "toString" as "u8" }]],
    ["no byte order", [{ name: "a", type: "u8" }], { endian: "middle" as "big" }],
    ["a string without length", [{ name: "a", type: "string" }]],
    ["length 0", [{ name: "a", type: "bytes", length: 0 }]],
    ["a length on a number", [{ name: "a", type: "u8", length: 1 }]],
    [
      "rest before the end",
      [
        { name: "a", type: "bytes", length: "rest" },
        { name: "b", type: "u8" },
      ],
    ],
    ["too long", [{ name: "a", type: "bytes", length: 65536 }]],
    ["scale 0", [{ name: "a", type: "u8", scale: 0 }]],
    ["scale NaN", [{ name: "a", type: "u8", scale: Number.NaN }]],
    ["scale on text", [{ name: "a", type: "string", length: 1, scale: 2 }]],
    ["enum on a float", [{ name: "a", type: "f32", enum: { 1: "x" } }]],
    ["enum with scale", [{ name: "a", type: "u8", scale: 2, enum: { 1: "x" } }]],
    ["enum out of range", [{ name: "a", type: "u8", enum: { 256: "x" } }]],
    ["enum with a name twice", [{ name: "a", type: "u8", enum: { 1: "x", 2: "x" } }]],
    ["bits on a signed type", [{ name: "a", type: "i8", bits: { x: 0 } }]],
    ["bit out of range", [{ name: "a", type: "u8", bits: { x: 8 } }]],
    ["bits overlapping", [{ name: "a", type: "u8", bits: { x: 1, y: [0, 1] } }]],
    ["bits backwards", [{ name: "a", type: "u8", bits: { x: [3, 2] } }]],
    ["const out of range", [{ name: "a", type: "u8", const: 256 }]],
    ["const with scale", [{ name: "a", type: "u8", const: 1, scale: 2 }]],
    ["const of no enum name", [{ name: "a", type: "u8", enum: { 1: "x" }, const: "y" }]],
  ];
  for (const [what, fields, more] of misdefined) {
    it(`refuses a definition with ${what}`, () => {
      thrown("TG_CONFIG", () => struct(fields, more));
    });
  }

  it("describes its layout", () => {
    expect(describeStruct(boiler.codecs["boiler-status"] as StructDefinition)).to.deep.equal([
      "0  u8  kind  1=status  2=alarm",
      "1  u16 little  seq",
      "3  i16 little  temperature  raw * 0.01  Cel",
      "5  u32 little  pressure  raw * 0.1  Pa",
      "9  u8  flags  door=bit 0  fan=bit 1  mode=bits 2-3",
    ]);
  });
});
