import { expect } from "chai";
import { createCodecs } from "../../../src/transform/codecs/registry.ts";
import { createCommandEncoder } from "../../../src/transform/command.ts";
import { boiler, bytes, thrown } from "./support.ts";

const codecs = createCodecs({
  ...boiler.codecs,
  line: { type: "text" },
  mode: { type: "struct", endian: "big", fields: [{ name: "mode", type: "u8", enum: { 1: "high" } }] },
});

const encoded = (codec: string, payload: string | Buffer): Buffer =>
  Buffer.from(
    createCommandEncoder(
      codec,
      codecs,
    )({ topic: "c", payload: Buffer.from(payload), qos: 1, retain: false, source: "mqtt:x" }),
  );

describe("transform/command", () => {
  it("encodes an object, or the bare value of the only field", () => {
    for (const payload of ['{"setpoint":21.5}', "21.5", ' {"setpoint":21.5,"kind":1,"more":2}\n']) {
      expect(encoded("boiler-command", payload)).to.deep.equal(bytes("10 6608"));
    }
    for (const payload of ['{"mode":"high"}', '"high"', "high", "1", " high\n"]) {
      expect(encoded("mode", payload)).to.deep.equal(bytes("01"));
    }
  });

  it("refuses what does not fit", () => {
    for (const payload of ["", "{", "warm", "{}", "[1]", "400", "null", '"', Buffer.from([0xff])]) {
      thrown("TG_DECODE", () => encoded("boiler-command", payload));
    }
    thrown("TG_DECODE", () => encoded("boiler-status", "1"));
    thrown("TG_DECODE", () => encoded("cbor", "on"));
  });

  it("takes text as it is, and hex with or without quotes", () => {
    for (const codec of ["text", "line"]) expect(encoded(codec, '"on" ')).to.deep.equal(Buffer.from('"on" '));
    for (const payload of ["12e4", '"12e4"', " 12 E4\n"]) expect(encoded("hex", payload)).to.deep.equal(bytes("12e4"));
    thrown("TG_DECODE", () => encoded("hex", "on"));
    expect(encoded("cbor", '{"a":1}')).to.deep.equal(bytes("a1616101"));
    expect(encoded("json", ' {"a": 1} ')).to.deep.equal(Buffer.from('{"a":1}'));
  });

  it("refuses an unknown codec", () => {
    expect(thrown("TG_CONFIG", () => createCommandEncoder("nothing", codecs)).message).to.contain("boiler-command");
  });
});
