import { expect } from "chai";
import { messageLines, payloadLine, type ShownMessage } from "../../../src/cli/messageText.ts";
import { counted, plainText, table } from "../../../src/cli/texts.ts";

const shown = (more: Partial<ShownMessage> = {}): ShownMessage => ({
  ...{
    topic: "t",
    source: "mqtt:a",
    taken: "2026-01-01T00:00:00.000Z",
    qos: 1,
    retain: false,
    bytes: 1,
    properties: {},
  },
  payload: { encoding: "utf8", data: "x" },
  ...more,
});

describe("cli: what others sent, on a terminal", () => {
  it("lets nothing write to the terminal", () => {
    expect(plainText("a\u001b[2Jb\u0000\u009b\r\n\u202e\u200b\ud800é漢", 100)).to.equal(
      "a\\x1b[2Jb\\x00\\x9b\\x0d\\x0a\\u{202e}\\u{200b}\\u{d800}é漢",
    );
    const hostile = shown({
      topic: "a\u001b]0;x\u0007",
      source: "mqtt:\u001b",
      properties: { contentType: "\u001bc", userProperties: [["\u001b", "\n"]], other: { x: "\u001b" } },
      payload: { encoding: "utf8", data: '{"a":"\u001b"}' },
    });
    for (const line of messageLines(hostile)) expect(line).to.not.match(/[\p{Cc}]/u);
    expect(payloadLine(hostile.payload)).to.not.match(/[\p{Cc}]/u);
  });

  it("cuts what is too long, and says so", () => {
    expect(plainText("abcdef", 4)).to.equal("abc…");
    const long = messageLines(shown({ bytes: 20_000, payload: { encoding: "utf8", data: "y".repeat(20_000) } }));
    expect(long.at(-1)).to.equal("(the first 16384 characters; --json has all)");
    const bytes = { encoding: "base64", data: Buffer.alloc(2000).toString("base64") } as const;
    expect(messageLines(shown({ bytes: 2000, payload: bytes })).at(-1)).to.equal(
      "(the first 1024 bytes; --json has all)",
    );
    expect(payloadLine(bytes)).to.equal(`${"00".repeat(24)}… (hex)`);
  });

  it("tells JSON, text and bytes apart", () => {
    const first = (data: string): string | undefined =>
      messageLines(shown({ payload: { encoding: "utf8", data } })).find((line) => line.startsWith("payload"));
    expect(first('{"a":1}')).to.equal("payload     1 byte, JSON");
    expect(first("[1")).to.equal("payload     1 byte, text");
    expect(first("a\tb\r\nc")).to.equal("payload     1 byte, text");
    expect(first("a\u0001b")).to.equal("payload     1 byte");
    expect(messageLines(shown({ bytes: 0, payload: { encoding: "utf8", data: "" } })).at(-1)).to.equal(
      "payload     empty",
    );
  });

  it("sets tables and numbers", () => {
    expect(table(["A", "LONG"], [["1234", "x"]])).to.deep.equal(["A     LONG", "1234  x"]);
    expect([counted(0, "letter"), counted(1, "letter"), counted(2, "letter")].join()).to.equal(
      "0 letters,1 letter,2 letters",
    );
  });
});
