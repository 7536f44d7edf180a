import { expect } from "chai";
import type { Reading } from "../../../src/base/contracts.ts";
import { createCodecs } from "../../../src/transform/codecs/registry.ts";
import { createReadingTransform, type ReadingTransformOptions } from "../../../src/transform/reading.ts";
import { boiler, bytes, thrown } from "./support.ts";

const codecs = createCodecs(boiler.codecs);
const status = bytes("01 3412 6908 02760f00 09");

function transform(options: Partial<ReadingTransformOptions>, reading: Partial<Reading>) {
  const made = createReadingTransform(
    { source: "boiler", decode: "boiler-status", topic: "plant/boiler/{kind}", qos: 1, ...options },
    codecs,
  );
  return made({ source: "boiler", payload: status, ...reading });
}

function why(options: Partial<ReadingTransformOptions>, reading: Partial<Reading> = {}): string {
  const result = transform(options, reading);
  expect(result.kind).to.equal("undecodable");
  return result.kind === "undecodable" ? result.why : "";
}

function topic(options: Partial<ReadingTransformOptions>, reading: Partial<Reading> = {}): string {
  const result = transform(options, reading);
  expect(result).to.have.property("kind", "message");
  return result.kind === "message" ? result.message.topic : "";
}

describe("transform/reading", () => {
  it("makes a JSON message of a frame", () => {
    const result = transform({}, {});
    if (result.kind !== "message") throw new Error(result.why);
    const { payload, ...message } = result.message;
    expect(message).to.deep.equal({
      topic: "plant/boiler/status",
      qos: 1,
      retain: false,
      properties: { contentType: "application/json", payloadFormat: 1 },
      source: "source:boiler",
    });
    expect(Buffer.from(payload).toString()).to.equal(
      '{"kind":"status","seq":4660,"temperature":21.53,"pressure":101325,"flags":{"door":true,"fan":false,"mode":2}}',
    );
    expect(result.value).to.have.property("seq", 4660);
  });

  it("passes qos and retain on", () => {
    const result = transform({ qos: 0, retain: true }, {});
    expect(result).to.have.nested.property("message.qos", 0);
    expect(result).to.have.nested.property("message.retain", true);
  });

  it("fills the topic from source, variables and nested fields", () => {
    expect(topic({ topic: "{source}/{flags.mode}/{flags.door}" })).to.equal("boiler/2/true");
    expect(topic({ topic: "field/{path}" }, { variables: { path: "yard/1" } })).to.equal("field/yard/1");
    expect(topic({ topic: "x/{kind}" }, { variables: { kind: "variable" } })).to.equal("x/variable");
  });

  it("makes one level of whatever a device sends", () => {
    const json = (value: unknown) => ({ payload: Buffer.from(JSON.stringify(value)) });
    const options = { decode: "json", topic: "a/{id}" };
    expect(topic(options, json({ id: "x/../#+\u0000" }))).to.equal("a/x_..____");
    expect(topic(options, json({ id: "" }))).to.equal("a/_");
    expect(topic({ decode: "json", topic: "a/{list.1}" }, json({ list: [1, 2] }))).to.equal("a/2");
    expect(why({ decode: "json", topic: "{id}/a" }, json({ id: "$SYS" }))).to.contain("start with $");
    expect(topic({ decode: "json", topic: "$own/{id}" }, json({ id: "$SYS" }))).to.equal("$own/$SYS");
    for (const id of [null, {}, [1]]) expect(why(options, json({ id }))).to.equal("no value for {id} of the topic");
    expect(why(options, json(5))).to.contain("{id}");
    expect(why({ decode: "json", topic: "a/{constructor}" }, json({}))).to.contain("{constructor}");
    expect(why({ decode: "json", topic: "a/{toString.name}" }, json({}))).to.contain("{toString.name}");
  });

  it("refuses what would be no topic", () => {
    expect(why({ topic: "f/{path}" }, { variables: { path: "a/#" } })).to.contain("must not contain");
    expect(why({ topic: "f/{path}" }, { variables: { path: "a/".repeat(200) } })).to.contain("levels");
    expect(why({ topic: "f/{path}" }, { variables: {} })).to.contain("{path}");
  });

  it("says why a frame does not decode", () => {
    expect(why({}, { payload: bytes("01") })).to.contain("boiler-status: field seq at offset 1");
  });

  it("decodes by Content-Format", () => {
    const options = { decode: "auto", topic: "t" };
    const decoded = (contentFormat: number | undefined, hex: string) => {
      const result = transform(options, { contentFormat, payload: bytes(hex) });
      return result.kind === "message" ? Buffer.from(result.message.payload).toString() : result.why;
    };
    expect(decoded(60, "a1616101")).to.equal('{"a":1}');
    expect(decoded(50, "7b7d")).to.equal("{}");
    expect(decoded(0, "7b7d")).to.equal('"{}"');
    expect(decoded(42, "7b7d")).to.equal('"7b7d"');
    expect(decoded(undefined, "3132")).to.equal("12");
    expect(decoded(41, "3132")).to.equal("unsupported content-format 41");
  });

  it("refuses a wrong definition", () => {
    thrown("TG_CONFIG", () => transform({ decode: "nothing" }, {}));
    thrown("TG_CONFIG", () => transform({ topic: "a/{" }, {}));
    thrown("TG_CONFIG", () => transform({ topic: "a/+" }, {}));
    thrown("TG_CONFIG", () => transform({ topic: "" }, {}));
  });
});
