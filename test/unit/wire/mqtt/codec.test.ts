import { expect } from "chai";
import { encodeAck, writeAck } from "../../../../src/wire/mqtt/ack.ts";
import { decodePacket } from "../../../../src/wire/mqtt/decode.ts";
import { encodePacket } from "../../../../src/wire/mqtt/encode.ts";
import { filterFault, isShared, splitSharedFilter } from "../../../../src/wire/mqtt/filter.ts";
import { FrameScanner } from "../../../../src/wire/mqtt/frameScanner.ts";
import type { ConnectPacket, Packet, ProtocolVersion, PublishPacket } from "../../../../src/wire/mqtt/packet.ts";
import { ProtocolError } from "../../../../src/wire/mqtt/protocolError.ts";
import {
  decodeTopicName,
  encodePublish,
  newPublishView,
  packetIdOffset,
  scanPublish,
} from "../../../../src/wire/mqtt/publish.ts";
import { loadVectors, readAll } from "../../../vectors/mqtt/load.ts";

const hex = (bytes: Buffer): string => bytes.toString("hex");
const publish = (fields: Partial<PublishPacket>): PublishPacket => ({
  kind: "publish",
  dup: false,
  qos: 0,
  retain: false,
  topic: "a/b",
  packetId: 0,
  payload: Buffer.from("hi"),
  ...fields,
});

function scan(bytes: Buffer, version: ProtocolVersion) {
  const view = newPublishView();
  return scanPublish(bytes, bytes.readUInt8(0), 2, bytes.length, version, view) ? view : undefined;
}

describe("MQTT PUBLISH fast path", () => {
  for (const version of [4, 5] as const) {
    it(`finds the parts without decoding, version ${version}`, () => {
      const bytes = encodePublish(publish({ qos: 2, dup: true, retain: true, packetId: 0x1234 }), version);
      const view = scan(bytes, version);
      expect(view).to.deep.include({ qos: 2, dup: true, retain: true, packetId: 0x1234, topicStart: 4, topicEnd: 7 });
      expect(bytes.toString("latin1", view?.payloadStart)).to.equal("hi");
    });
    it(`clears what the packet before left in the view, version ${version}`, () => {
      const view = newPublishView();
      for (const [qos, packetId] of [
        [1, 9],
        [0, 0],
      ] as const) {
        const bytes = encodePublish(publish({ qos, packetId, retain: qos === 1 }), version);
        expect(scanPublish(bytes, bytes.readUInt8(0), 2, bytes.length, version, view)).to.equal(true);
        expect(view).to.deep.include({ qos, packetId, retain: qos === 1 });
      }
    });
  }

  it("leaves properties to the slow path", () => {
    expect(scan(encodePublish(publish({ topicAlias: 1 }), 5), 5)).to.equal(undefined);
  });

  it("never reads past the packet, even when its buffer goes on", () => {
    const bytes = Buffer.from("3205000561626364650001ff", "hex"); // the topic would end where the packet does not
    expect(scanPublish(bytes, 0x32, 2, 7, 4, newPublishView())).to.equal(false);
    expect(scanPublish(bytes, 0x32, 2, 9, 4, newPublishView())).to.equal(false); // no packet id
    expect(scanPublish(bytes, 0x32, 2, 10, 4, newPublishView())).to.equal(false); // half of one
    expect(scanPublish(bytes, 0x32, 2, 11, 4, newPublishView())).to.equal(true);
    expect(scanPublish(bytes, 0x32, 2, 11, 5, newPublishView())).to.equal(false); // no property length
    expect(scanPublish(bytes, 0x30, 2, 3, 4, newPublishView())).to.equal(false);
  });

  it("accepts nothing but a topic's characters that decoding refuses", () => {
    const rows = loadVectors("refused.json").filter(({ hex: text }) => /^3[0-9a-f]/.test(text));
    expect(rows.length).to.be.above(30);
    for (const { name, hex: text, version } of rows) {
      const bytes = Buffer.from(text, "hex");
      if (bytes.readUInt8(1) > 0x7f || version === null) continue; // refused by the scanner
      const view = scan(bytes, version);
      if (view === undefined) continue;
      expect(() => decodeTopicName(bytes, view.topicStart, view.topicEnd), name).to.throw(ProtocolError);
    }
  });

  it("names the packet id's place in an encoded PUBLISH", () => {
    for (const payload of [Buffer.alloc(1), Buffer.alloc(500), Buffer.alloc(20_000)]) {
      const bytes = encodePublish(publish({ qos: 1, packetId: 0xbeef, payload, topicAlias: 3 }), 5);
      expect(bytes.readUInt16BE(packetIdOffset(bytes))).to.equal(0xbeef);
    }
  });

  it("hands out payload and correlation data as views, and CONNECT's bytes as copies", () => {
    const sent = publish({ properties: { correlationData: Buffer.from("c") } });
    const bytes = encodePublish(sent, 5);
    const got = decodePacket(bytes, 0x30, 2, bytes.length, 5, "client") as PublishPacket;
    expect(got.payload.buffer).to.equal(bytes.buffer);
    expect(got.properties?.correlationData?.buffer).to.equal(bytes.buffer);

    const connect: ConnectPacket = {
      kind: "connect",
      version: 5,
      clientId: "c",
      clean: true,
      keepAliveSeconds: 0,
      password: Buffer.from("secret"),
      will: { topic: "w", payload: Buffer.from("bye"), qos: 0, retain: false },
      properties: { authenticationMethod: "m", authenticationData: Buffer.from("data") },
    };
    const wire = encodePacket(connect, 5);
    const read = decodePacket(wire, 0x10, 2, wire.length, undefined, "client") as ConnectPacket;
    wire.fill(0);
    expect(String(read.password)).to.equal("secret");
    expect(String(read.will?.payload)).to.equal("bye");
    expect(String(read.properties?.authenticationData)).to.equal("data");
  });
});

describe("MQTT acknowledgements", () => {
  it("are 4 bytes on success and in 3.1.1, else 5", () => {
    expect(hex(encodeAck("puback", 0x0102, 0, 5))).to.equal("40020102");
    expect(hex(encodeAck("pubrel", 0xffff, 0, 4))).to.equal("6202ffff");
    expect(hex(encodeAck("pubrec", 1, 0x97, 4))).to.equal("50020001");
    expect(hex(encodeAck("pubrec", 1, 0x97, 5))).to.equal("5003000197");
  });

  it("can be written one after the other", () => {
    const target = Buffer.alloc(12);
    let at = writeAck(target, 0, "puback", 1);
    at = writeAck(target, at, "pubrec", 2);
    at = writeAck(target, at, "pubcomp", 0x0304);
    expect(at).to.equal(12);
    expect(hex(target)).to.equal("400200015002000270020304");
  });
});

describe("MQTT writing", () => {
  it("keeps the order of user properties, whatever their names", () => {
    const pairs = [
      ["z", "1"],
      ["__proto__", "2"],
      ["10", "3"],
      ["z", "4"],
      ["2", ""],
    ] as const;
    const packet: Packet = { kind: "unsubscribe", packetId: 1, filters: ["a"], userProperties: pairs };
    expect(readAll([encodePacket(packet, 5)], 5, "client")).to.deep.equal([packet]);
  });

  it("turns MQTT 5 failures into the only one that a 3.1.1 SUBACK has", () => {
    const packet: Packet = { kind: "suback", packetId: 1, reasonCodes: [1, 0x87, 0x8f] };
    expect(hex(encodePacket(packet, 4))).to.equal("90050001018080");
  });

  it("leaves properties out in 3.1.1", () => {
    const properties = { reasonString: "x" };
    expect(hex(encodePacket({ kind: "connack", sessionPresent: false, reasonCode: 5, properties }, 4))).to.equal(
      "20020005",
    );
    expect(hex(encodePacket({ kind: "disconnect", reasonCode: 0x8b, properties }, 4))).to.equal("e000");
    expect(hex(encodePacket({ kind: "puback", packetId: 1, reasonCode: 0x97, properties }, 4))).to.equal("40020001");
    expect(hex(encodePublish(publish({ properties: { contentType: "x" }, topicAlias: 1 }), 4))).to.equal(
      "30070003612f626869",
    );
  });

  it("takes empty lists of user properties for none", () => {
    const packet: Packet = { kind: "disconnect", reasonCode: 0x8b, properties: { userProperties: [] } };
    expect(hex(encodePacket(packet, 5))).to.equal("e0028b00");
  });

  it("throws, but no ProtocolError, for what does not fit", () => {
    const long = "x".repeat(65_536);
    const wrong: Packet[] = [
      publish({ topic: long }),
      publish({ properties: { contentType: long } }),
      publish({ properties: { correlationData: Buffer.alloc(65_536) } }),
      publish({ properties: { userProperties: [["a", long]] } }),
      publish({ subscriptionIdentifiers: [268_435_456] }),
      { kind: "unsubscribe", packetId: 1, filters: [long] },
      { kind: "unsubscribe", packetId: 1, filters: [] },
      { kind: "suback", packetId: 1, reasonCodes: [] },
      { kind: "connack", sessionPresent: false, reasonCode: 0x87, properties: { reasonString: long } },
    ];
    for (const packet of wrong) {
      expect(() => encodePacket(packet, 5), packet.kind)
        .to.throw(Error)
        .and.not.instanceOf(ProtocolError);
    }
    expect(() => encodePacket({ kind: "auth", reasonCode: 0 }, 4)).to.throw(RangeError);
  });

  it("writes the longest string there can be", () => {
    const packet = publish({ topic: "ü".repeat(32_767) });
    expect(readAll([encodePublish(packet, 5)], 5, "client", new FrameScanner(70_000))).to.deep.equal([packet]);
  });
});

describe("MQTT shared filters", () => {
  it("are taken apart", () => {
    expect(splitSharedFilter("$share/g/a/#")).to.deep.equal({ share: "g", filter: "a/#" });
    expect(splitSharedFilter("$share/g//a")).to.deep.equal({ share: "g", filter: "/a" });
    expect(splitSharedFilter("$sharen/g/a")).to.deep.equal({ share: undefined, filter: "$sharen/g/a" });
    expect([isShared("$share/g/a"), isShared("$share"), isShared("a/$share/b")]).to.deep.equal([true, false, false]);
  });

  it("are checked, however many levels they have", () => {
    expect(filterFault("$share/g/+/#")).to.equal(null);
    expect(filterFault("/".repeat(60_000))).to.equal(null);
    expect(filterFault("$share/g")).to.be.a("string");
    expect(filterFault("$share/+/a")).to.be.a("string");
    expect(filterFault("$share/g/a#")).to.be.a("string");
  });
});
