import { expect } from "chai";
import fc from "fast-check";
import { TidegateError } from "../../src/base/errors.ts";
import { createCborCodec } from "../../src/transform/codecs/cbor.ts";
import { createJsonCodec } from "../../src/transform/codecs/json.ts";
import { createCodecs } from "../../src/transform/codecs/registry.ts";
import { StructCodec } from "../../src/transform/codecs/struct.ts";
import type { StructField } from "../../src/transform/codecs/structDefinition.ts";
import { createReadingTransform } from "../../src/transform/reading.ts";

type Body = Omit<StructField, "name">;

const integers = ["u8", "i8", "u16", "i16", "u24", "i24", "u32", "i32"] as const;
const endian = fc.constantFrom("little" as const, "big" as const);
const length = fc.integer({ min: 1, max: 9 });

/** Any field whose values come back exactly: scaled floats and scaled 64-bit integers are rounded, so they are left out. */
const body: fc.Arbitrary<Body> = fc.oneof(
  fc.record({
    type: fc.constantFrom(...integers, "u64" as const, "i64" as const, "f32" as const, "f64" as const),
    endian,
  }),
  fc.record({
    type: fc.constantFrom(...integers),
    scale: fc.constantFrom(0.01, 0.1, 0.5, 2, 10, 0.001, -0.1, 0.0625, 1e-6),
    offset: fc.constantFrom(0, -40, 273.15, 1000),
    endian,
  }),
  fc.record({ type: fc.constantFrom("string" as const, "bytes" as const), length }),
  fc.constant<Body>({ type: "u16", enum: { 1: "one", 258: "many", 65535: "all" } }),
  fc.constant<Body>({ type: "u24", bits: { a: 0, b: [1, 9], c: 23 } }),
);

const fieldList = fc
  .tuple(
    fc.array(body, { minLength: 1, maxLength: 12 }),
    fc.constantFrom<Body | undefined>(undefined, { type: "bytes", length: "rest" }),
  )
  .map(([bodies, last]) =>
    (last === undefined ? bodies : [...bodies, last]).map((one, at): StructField => ({ name: `f${at}`, ...one })),
  );

/** Runs a decoder; undefined when it refused with TG_DECODE, which is the only thing it may throw. */
function decoded(decode: () => unknown): { value: unknown } | undefined {
  try {
    return { value: decode() };
  } catch (error) {
    if (error instanceof TidegateError && error.code === "TG_DECODE") return undefined;
    throw error;
  }
}

/** Plain JSON: writing and reading it back changes nothing, and no object has another prototype than Object's. */
function expectPlain(value: unknown): void {
  const text = JSON.stringify(value, (_key, inner: unknown) => {
    if (typeof inner === "object" && inner !== null && !Array.isArray(inner)) {
      expect(Object.getPrototypeOf(inner)).to.equal(Object.prototype);
    }
    return inner;
  });
  expect(text).to.be.a("string");
  expect(({} as Record<string, unknown>)["polluted"]).to.equal(undefined);
}

/** Changes a few bytes of something valid: gets further into a decoder than noise does. */
const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 3 });
function damaged(payload: Uint8Array, changes: Array<[number, number]>): Uint8Array {
  const copy = Uint8Array.from(payload);
  for (const [at, byte] of changes) if (copy.length > 0) copy[at % copy.length] = byte;
  return copy;
}

const json = fc.jsonValue({ maxDepth: 5 });

describe("properties of transform", () => {
  it("struct: what was decoded is encoded to bytes that decode to the same", () => {
    fc.assert(
      fc.property(fieldList, endian, fc.uint8Array({ minLength: 160, maxLength: 160 }), (fields, order, noise) => {
        const codec = new StructCodec("p", { type: "struct", endian: order, fields, trailing: "ignore" });
        const first = decoded(() => codec.decode(noise));
        if (first === undefined) return; // a string that is no UTF-8
        const again = codec.encode(first.value);
        expect(codec.decode(again)).to.deep.equal(first.value);
        expect(codec.decode(again)).to.deep.equal(JSON.parse(JSON.stringify(first.value)));
        const exact = fields.every(
          ({ type, bits }) => type !== "string" && type !== "f32" && type !== "f64" && bits === undefined,
        );
        if (exact) expect(Buffer.from(again).equals(noise.subarray(0, again.length))).to.equal(true);
      }),
      { numRuns: 300 },
    );
  });

  it("struct: random bytes are decoded or refused, and every cut of a frame is refused", () => {
    fc.assert(
      fc.property(fieldList, endian, fc.uint8Array({ maxLength: 64 }), (fields, order, noise) => {
        const codec = new StructCodec("p", { type: "struct", endian: order, fields });
        const result = decoded(() => codec.decode(noise));
        if (result === undefined) return;
        expectPlain(result.value);
        if (fields.at(-1)?.length !== "rest")
          expect(decoded(() => codec.decode(noise.subarray(1)))).to.equal(undefined);
      }),
      { numRuns: 300 },
    );
  });

  it("struct: any value is encoded or refused", () => {
    fc.assert(
      fc.property(
        fieldList,
        fc.anything({ maxDepth: 2 }),
        fc.array(fc.anything({ withBigInt: true, withDate: true })),
        (fields, any, values) => {
          const codec = new StructCodec("p", { type: "struct", endian: "big", fields });
          decoded(() => codec.encode(any));
          decoded(() => codec.encode(Object.fromEntries(fields.map(({ name }, at) => [name, values[at]]))));
        },
      ),
      { numRuns: 300 },
    );
  });

  for (const codec of [createCborCodec("cbor"), createJsonCodec("json")]) {
    it(`${codec.name}: JSON values come back`, () => {
      fc.assert(
        fc.property(json, (value) => {
          const expected: unknown = JSON.parse(JSON.stringify(value).replaceAll('"__proto__":', '"__proto_":'));
          const back = codec.decode(codec.encode(JSON.parse(JSON.stringify(expected))));
          expect(JSON.stringify(back)).to.equal(JSON.stringify(expected));
        }),
        { numRuns: 300 },
      );
    });

    it(`${codec.name}: noise and damaged items are decoded to plain JSON or refused`, () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 64 }), json, damage, (noise, value, changes) => {
          for (const payload of [noise, damaged(codec.encode(JSON.parse(JSON.stringify(value))), changes)]) {
            const result = decoded(() => codec.decode(payload));
            if (result !== undefined) expectPlain(result.value);
          }
        }),
        { numRuns: 500 },
      );
    });
  }

  it("readings: never a throw, and every topic made can be published to", () => {
    const codecs = createCodecs({});
    const transforms = ["json", "cbor", "text", "hex", "auto"].map((decode) =>
      createReadingTransform({ source: "s", decode, topic: "a/{a}/{b.c}/{path}", qos: 1 }, codecs),
    );
    const text = fc.string({ unit: "binary", maxLength: 20 });
    const reading = fc.oneof(
      fc.uint8Array({ maxLength: 32 }),
      fc
        .record({ a: text, b: fc.record({ c: fc.oneof(text, fc.double()) }) })
        .map((value) => Buffer.from(JSON.stringify(value))),
    );
    fc.assert(
      fc.property(
        reading,
        text,
        fc.option(fc.integer({ min: 0, max: 70 }), { nil: undefined }),
        (payload, path, contentFormat) => {
          for (const transform of transforms) {
            const result = transform({ source: "s", payload, contentFormat, variables: { path } });
            if (result.kind === "message")
              expect(result.message.topic).to.match(/^a\/[^/+#\0]+\/[^/+#\0]+\/[^+#\0]*$/u);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});
