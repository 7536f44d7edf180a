/** What `check` calls valid must not be refused when the gateway starts: the config's rules and the stages' own are written twice. */
import { expect } from "chai";
import fc from "fast-check";
import { loadConfig } from "../../../src/config/load.ts";
import { createCodecs } from "../../../src/transform/codecs/registry.ts";
import { accepted, problemsOf, refuses } from "./helpers.ts";

const struct = (fields: readonly object[]): string => JSON.stringify({ codecs: { s: { type: "struct", fields } } });
const optional = (...values: readonly unknown[]) => fc.option(fc.constantFrom(...values), { nil: undefined, freq: 2 });

const field = fc.record({
  name: fc.constantFrom("a", "b", "_c", "d-e", "\u00e9", "__proto__", "constructor"),
  type: fc.constantFrom("u8", "i8", "u24", "u32", "i32", "u64", "i64", "f32", "f64", "string", "bytes"),
  length: optional(1, 2, 4, "rest"),
  scale: optional(0.1, -1, 1e-15, 0),
  offset: optional(0, 0.3),
  enum: optional({}, { 1: "x", 2: "y" }, { 1: "x", "01": "z" }, { "-1": "m" }, { 1: "__proto__" }),
  bits: optional({}, { a: 0 }, { "a b": 1 }, { a: [0, 3], b: [3, 4] }, { m: [0, 31] }, { 9: 1 }, { "x.y": 2 }),
  const: optional(
    0,
    255,
    256,
    -1,
    1.5,
    2 ** 60,
    1e39,
    "aa",
    "aa55",
    "x",
    "ab:cd",
    "\u00e9",
    "\u0000",
    "18446744073709551615",
  ),
});

describe("config: what is valid can be started", () => {
  // Each reading makes its schemas anew, which is 10 ms of work: hundreds of them are minutes on a busy machine.
  it("for any struct", async function () {
    this.timeout(300_000);
    await fc.assert(
      fc.asyncProperty(fc.array(field, { minLength: 1, maxLength: 2 }), async (fields) => {
        const result = await loadConfig({ text: struct(fields), env: {}, hostname: "h" });
        if (result.ok) createCodecs(result.config.codecs as Parameters<typeof createCodecs>[0]);
      }),
      { numRuns: 500 },
    );
  });

  for (const [what, wrong, path] of [
    ["a field __proto__", { name: "__proto__", type: "u8" }, "name"],
    ["bits without a name", { name: "a", type: "u8", bits: {} }, "bits"],
    ["bits with a name that no topic could hold", { name: "a", type: "u8", bits: { "x.y": 1 } }, "bits.x.y"],
    ["two names of one value", { name: "a", type: "u8", enum: { 1: "x", "01": "y" } }, "enum.01"],
    ["a text longer than its field", { name: "a", type: "string", length: 2, const: "\u00e9x" }, "const"],
    ["bytes that do not fill their field", { name: "a", type: "bytes", length: 4, const: "aa 55" }, "const"],
    ["a float of 32 bits beyond its range", { name: "a", type: "f32", const: 1e39 }, "const"],
    ["a long number that lost digits", { name: "a", type: "u64", const: 2 ** 60 }, "const"],
  ] as const) {
    it(`refuses ${what}`, async () => {
      const paths = (await problemsOf(struct([wrong]))).map((problem) => problem.path);
      expect(paths).to.deep.equal([`codecs.s.fields[0].${path}`]);
    });
  }

  it("takes a long constant as text", async () => {
    const { codecs } = await accepted(struct([{ name: "a", type: "u64", const: "18446744073709551615" }]));
    const codec = createCodecs(codecs as Parameters<typeof createCodecs>[0]).get("s");
    expect(Buffer.from(codec?.encode({}) ?? []).toString("hex")).to.equal("ffffffffffffffff");
  });

  it("refuses decode behind another step", async () => {
    const route = "routes: [{ name: r, from: a, to: b, steps: [{ decode: json }, { decode: json }] }]";
    await refuses(route, "routes[0].steps[1].decode", "as the first step");
  });

  it("refuses a gateway id that a topic template would read as a placeholder", async () => {
    for (const id of ["a{b}", "a{", "$SYS", "a$&"])
      await refuses(`gateway: { id: '${id}' }`, "gateway.id", "not one topic level");
    expect((await accepted("", { hostname: "a{b}$" })).gateway.id).to.equal("a_b__");
  });

  it("refuses an acknowledgement that asks for what no reading has", async () => {
    const source = "sources: [{ name: a, type: serial, path: /dev/x, decode: reading, topic: t, ack: ack }]";
    const config = (field: string) => `codecs:
  reading: { type: struct, fields: [{ name: seq, type: u16 }] }
  ack: { type: struct, fields: [{ name: kind, type: u8, const: 6 }, { name: ${field}, type: u16 }] }
${source}`;
    await accepted(config("seq"));
    await refuses(config("sequence"), "sources[0].ack", 'its field "sequence" is no field of the reading');
  });

  it("refuses port 0 where somebody else listens", async () => {
    await refuses("uplinks: [{ name: a, url: mqtt://h:0 }]", "uplinks[0].url", "port 0");
    await refuses(
      "sources: [{ name: a, type: coap, url: coap://h:0/x, decode: json, topic: t }]",
      "sources[0].url",
      "port 0",
    );
    await accepted("mqtt: { listeners: [{ url: mqtt://127.0.0.1:0 }] }");
  });
});

describe("config: what people get wrong", () => {
  it("never repeats what stands behind a colon without a blank", async () => {
    const [problem] = await problemsOf("uplinks: [{ name: a, url: mqtt://h, password:hunter2 }]");
    expect(problem?.path).to.equal("uplinks[0].password");
    expect(problem?.message).to.contain('begins with "password" (a : and a blank');
    expect(JSON.stringify(problem)).to.not.contain("hunter2");
  });

  it("says of a port that it is too large", async () => {
    await refuses("uplinks: [{ name: a, url: mqtts://h:888833 }]", "uplinks[0].url", "the port is above 65535");
    await refuses("http: { listen: http://127.0.0.1:80800/ }", "http.listen", "the port is above 65535");
  });

  it("says a mistake without a name of its own once, not for every line behind it", async () => {
    const text = "sources:\n  - topic: {kind}/x\n    name: a\n    decode: json\nhttp:\n  listen: c\n";
    expect((await problemsOf(text)).filter(({ message }) => message.startsWith("not YAML"))).to.have.lengthOf(1);
  });
});
