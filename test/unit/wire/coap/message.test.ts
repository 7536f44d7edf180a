import { expect } from "chai";
import { blockOffset, blockSize, decodeBlock, encodeBlock } from "../../../../src/wire/coap/block.ts";
import { encodeEmpty, encodeMessage, parseMessage } from "../../../../src/wire/coap/message.ts";
import {
  decodeUint,
  encodeUint,
  numberOfOptionName,
  refusedOption,
  textOptions,
  uintOption,
} from "../../../../src/wire/coap/options.ts";

const parsed = (hex: string) => parseMessage(Buffer.from(hex, "hex"));

describe("CoAP messages", () => {
  it("reads the example of RFC 7252 appendix A, figure 17", () => {
    const read = parsed("41017d3420bb74656d7065726174757265");
    expect(read.kind).to.equal("message");
    if (read.kind !== "message") return;
    expect(read.message).to.include({ type: "con", code: "0.01", messageId: 0x7d34 });
    expect(textOptions(read.message, 11)).to.deep.equal(["temperature"]);
    expect(read.message.token.toString("hex")).to.equal("20");
  });

  it("writes what it reads", () => {
    const message = {
      type: "non",
      code: "2.05",
      messageId: 0xffff,
      token: Buffer.from("12345678"),
      options: [
        { number: 6, value: Buffer.from([1]) },
        { number: 12, value: Buffer.alloc(0) },
        { number: 258, value: Buffer.from([2]) },
        { number: 2049, value: Buffer.alloc(300, 7) },
        { number: 65_000, value: Buffer.alloc(13) },
      ],
      payload: Buffer.from([0xff, 0]),
    } as const;
    expect(parseMessage(encodeMessage(message))).to.deep.equal({ kind: "message", message });
  });

  it("writes Empty messages", () => {
    expect(encodeEmpty("con", 0x1234).toString("hex")).to.equal("40001234");
    expect(encodeEmpty("ack", 0xffff).toString("hex")).to.equal("6000ffff");
    expect(encodeEmpty("rst", 1).toString("hex")).to.equal("70000001");
  });

  for (const [name, hex] of [
    ["nothing", ""],
    ["three bytes", "400102"],
    ["version 0", "00010203"],
    ["version 2", "80010203"],
    ["version 3", "c0010203"],
  ] as const) {
    it(`does not know ${name}`, () => expect(parsed(hex).kind).to.equal("alien"));
  }

  for (const [name, hex] of [
    ["a token length of 9", "49010203010203040506070809"],
    ["a token length of 15", "4f010203010203040506070809101112131415"],
    ["a cut token", "4401020301"],
    ["a cut option", "40010203b46162"],
    ["a cut extended delta", "40010203d0"],
    ["a cut extended length", "400102030e01"],
    ["option delta 15 that is no marker", "40010203f001"],
    ["option length 15", "400102030f"],
    ["option numbers above 65535", "40010203e0ffff"],
    ["a marker without payload", "40010203ff"],
    ["a marker without payload after an option", "40010203b161ff"],
    ["code class 1", "40210203"],
    ["code class 3", "40610203"],
    ["code class 6", "40c10203"],
    ["code class 7", "40e10203"],
    ["an Empty message with a token", "4100020301"],
    ["an Empty message with payload", "40000203ff01"],
  ] as const) {
    it(`finds the fault: ${name}`, () => {
      expect(parsed(hex)).to.include({ kind: "malformed", type: "con", messageId: 0x0203 });
    });
  }

  it("does not take an option value that ends in ff for a marker", () => {
    const read = parsed("40010203b1ff");
    expect(read.kind === "message" && read.message.options).to.deep.equal([{ number: 11, value: Buffer.from([0xff]) }]);
  });
});

describe("CoAP options", () => {
  it("writes numbers in the shortest form and reads any", () => {
    const rows = [
      [0, ""],
      [1, "01"],
      [255, "ff"],
      [256, "0100"],
      [65_536, "010000"],
      [2 ** 32 - 1, "ffffffff"],
    ] as const;
    for (const [value, hex] of rows) {
      expect(encodeUint(value).toString("hex")).to.equal(hex);
      expect(decodeUint(Buffer.from(hex, "hex"))).to.equal(value);
    }
    expect(decodeUint(Buffer.from("0000", "hex"))).to.equal(0);
  });

  it("knows every name of the codec by its number", () => {
    expect(numberOfOptionName("Uri-Path")).to.equal(11);
    expect(numberOfOptionName("9999")).to.equal(9999);
    expect(() => numberOfOptionName("New-Name")).to.throw(RangeError);
    for (let number = 1; number < 2100; number += 1) {
      const bytes = encodeMessage({
        type: "con",
        code: "0.01",
        messageId: 1,
        token: Buffer.alloc(0),
        options: [{ number, value: Buffer.alloc(0) }],
        payload: Buffer.alloc(0),
      });
      const read = parseMessage(bytes);
      expect(read.kind === "message" && read.message.options[0]?.number).to.equal(number);
    }
  });

  it("refuses critical options that are unknown, of a wrong length, or repeated", () => {
    const rules = new Map([
      [11, { lengthMin: 0, lengthMax: 3, repeatable: true }],
      [7, { lengthMin: 1, lengthMax: 2, repeatable: false }],
    ]);
    const of = (...pairs: Array<readonly [number, number]>) =>
      refusedOption(
        pairs.map(([number, length]) => ({ number, value: Buffer.alloc(length) })),
        rules,
      );
    expect(of([7, 1], [11, 0], [11, 3], [12, 99], [12, 1])).to.equal(undefined);
    expect(of([7, 0])).to.equal(7);
    expect(of([11, 4])).to.equal(11);
    expect(of([7, 1], [7, 1])).to.equal(7);
    expect(of([13, 0])).to.equal(13);
  });

  it("takes an elective number that is too long for absent", () => {
    const message = {
      type: "con",
      code: "0.01",
      messageId: 1,
      token: Buffer.alloc(0),
      payload: Buffer.alloc(0),
    } as const;
    const options = [{ number: 12, value: Buffer.from([0, 0, 60]) }];
    expect(uintOption({ ...message, options }, 12, 2)).to.equal(undefined);
    expect(uintOption({ ...message, options }, 12, 4)).to.equal(60);
    expect(uintOption({ ...message, options: [] }, 12, 2)).to.equal(undefined);
  });
});

describe("CoAP block options", () => {
  it("reads and writes number, more and size (RFC 7959 section 2.2)", () => {
    const rows = [
      ["", 0, false, 0],
      ["06", 0, false, 6],
      ["0e", 0, true, 6],
      ["1a", 1, true, 2],
      ["fffffe", 2 ** 20 - 1, true, 6],
    ] as const;
    for (const [hex, num, more, szx] of rows) {
      expect(decodeBlock(Buffer.from(hex, "hex"))).to.deep.equal({ num, more, szx });
      expect(encodeBlock({ num, more, szx }).toString("hex")).to.equal(hex);
    }
    expect(decodeBlock(Buffer.alloc(4))).to.equal(undefined);
  });

  it("knows sizes and offsets", () => {
    expect([0, 6].map(blockSize)).to.deep.equal([16, 1024]);
    expect(blockOffset({ num: 3, more: false, szx: 2 })).to.equal(192);
  });
});
