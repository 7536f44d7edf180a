import { expect } from "chai";
import { decodePacket } from "../../../../src/wire/mqtt/decode.ts";
import { FrameScanner } from "../../../../src/wire/mqtt/frameScanner.ts";
import { ProtocolError } from "../../../../src/wire/mqtt/protocolError.ts";
import { encodePublish } from "../../../../src/wire/mqtt/publish.ts";

function publish(payload: Uint8Array): Buffer {
  const fields = { kind: "publish", dup: false, qos: 0, retain: false, topic: "t", packetId: 0 } as const;
  return encodePublish({ ...fields, payload }, 4);
}

function codeOf(act: () => unknown): number {
  try {
    act();
  } catch (error) {
    if (error instanceof ProtocolError) return error.reasonCode;
    throw error;
  }
  return 0;
}

describe("MQTT FrameScanner", () => {
  it("reads whole packets from the chunk itself", () => {
    const chunk = Buffer.concat([publish(Buffer.from("one")), publish(Buffer.from("two"))]);
    const scanner = new FrameScanner(100);
    scanner.push(chunk);
    expect(scanner.next()).to.equal(true);
    expect(scanner.buffer).to.equal(chunk);
    expect([scanner.first, scanner.start, scanner.body, scanner.end]).to.deep.equal([0x30, 0, 2, 8]);
    expect(scanner.next()).to.equal(true);
    expect([scanner.start, scanner.body, scanner.end]).to.deep.equal([8, 10, 16]);
    expect(scanner.next()).to.equal(false);
    expect(scanner.bufferedBytes).to.equal(0);
  });

  it("has one view of a chunk for all its packets, of that buffer's bytes only, and lets go of it with the chunk", () => {
    const two = [publish(Buffer.from("one")), publish(Buffer.from("two"))];
    const chunk = Buffer.concat([Buffer.alloc(5), ...two, two[0]!.subarray(0, 3)]).subarray(5);
    const scanner = new FrameScanner(100);
    scanner.push(chunk);
    const views = [scanner.next(), scanner.next()].map(() => scanner.view);
    expect(views[0]).to.equal(views[1]);
    expect([views[0]!.byteLength, views[0]!.getUint8(scanner.start)]).to.deep.equal([chunk.length, 0x30]);
    expect(scanner.next()).to.equal(false);
    expect(scanner.view.byteLength).to.equal(0);
    scanner.push(two[0]!.subarray(3));
    expect(scanner.next()).to.equal(true);
    expect(scanner.view.byteLength).to.equal(two[0]!.length); // of the packet that came in two pieces
    scanner.drop();
    expect(scanner.next()).to.equal(false);
    expect(scanner.view.byteLength).to.equal(0);
  });

  it("lets go of the chunk when there is nothing more in it", () => {
    const scanner = new FrameScanner(100);
    scanner.push(publish(Buffer.from("x")));
    while (scanner.next());
    expect(scanner.buffer).to.have.length(0);
  });

  it("tells how much it holds of what was not read, and lets go of the rest that is none", () => {
    const one = publish(Buffer.from("x"));
    const scanner = new FrameScanner(100);
    scanner.push(Buffer.concat([one, one]));
    scanner.next();
    expect(scanner.unreadBytes).to.equal(2 * one.length);
    scanner.rest();
    expect(scanner.buffer).not.to.have.length(0); // there is more
    scanner.next();
    expect(scanner.unreadBytes).to.equal(0);
    scanner.rest();
    expect(scanner.buffer).to.have.length(0);
    scanner.push(one);
    scanner.drop();
    expect(scanner.unreadBytes).to.equal(0);
  });

  it("gives a packet that was cut off memory of its own, which stays true", () => {
    const scanner = new FrameScanner(100);
    const stream = Buffer.concat(["first", "second", "third"].map((text) => publish(Buffer.from(text))));
    const kept: Uint8Array[] = [];
    for (let at = 0; at < stream.length; at += 5) {
      const chunk = Buffer.from(stream.subarray(at, at + 5));
      scanner.push(chunk);
      while (scanner.next()) {
        const packet = decodePacket(scanner.buffer, scanner.first, scanner.body, scanner.end, 4, "client");
        if (packet.kind === "publish") kept.push(packet.payload);
      }
      chunk.fill(0);
    }
    expect(kept.map(String)).to.deep.equal(["first", "second", "third"]);
  });

  it("refuses a packet above the limit as soon as its header is there, before any body", () => {
    const scanner = new FrameScanner(1000);
    scanner.push(Buffer.from([0x30, 0xe6]));
    expect(scanner.next()).to.equal(false);
    scanner.push(Buffer.from([0x07])); // 998 + 3 bytes of header
    expect(codeOf(() => scanner.next())).to.equal(0x95);
    expect(scanner.bufferedBytes).to.be.at.most(5);
  });

  it("takes a packet of exactly the limit", () => {
    const scanner = new FrameScanner(1000);
    scanner.push(publish(Buffer.alloc(994)));
    expect(scanner.next()).to.equal(true);
    expect(scanner.end - scanner.start).to.equal(1000);
  });

  it("takes larger packets once the limit is raised, in the same chunk", () => {
    const scanner = new FrameScanner(10);
    scanner.push(Buffer.concat([publish(Buffer.from("x")), publish(Buffer.alloc(50))]));
    expect(scanner.next()).to.equal(true);
    scanner.maxPacketSize = 100;
    expect(scanner.next()).to.equal(true);
    expect(scanner.end - scanner.start).to.equal(55);
  });

  it("refuses remaining lengths that are too long, whole or in drops", () => {
    for (const hex of ["30ffffffff01", "30808080", "308000", "30ff8000"]) {
      for (const size of [1, 9]) {
        const scanner = new FrameScanner(300_000_000);
        const bytes = Buffer.from(hex === "30808080" ? "3080808080" : hex, "hex");
        const feed = () => {
          for (let at = 0; at < bytes.length; at += size) {
            scanner.push(bytes.subarray(at, at + size));
            while (scanner.next());
          }
        };
        expect(codeOf(feed), hex).to.equal(0x81);
      }
    }
  });

  it("grows by doubling for a packet that comes byte by byte, and lets go of it afterwards", () => {
    const packet = publish(Buffer.alloc(65_000, 7));
    const scanner = new FrameScanner(70_000);
    const sizes = new Set<number>();
    let found = 0;
    for (const byte of packet) {
      scanner.push(Buffer.of(byte));
      while (scanner.next()) found += scanner.end - scanner.start;
      sizes.add(scanner.bufferedBytes);
    }
    expect(found).to.equal(packet.length);
    expect(sizes.size).to.be.at.most(11); // 0, 5, 1 KiB ... the packet's size
    expect(Math.max(...sizes)).to.equal(packet.length);
    expect(scanner.bufferedBytes).to.equal(0);
  });

  it("does not take a large packet's word for its size: memory follows what came", () => {
    const scanner = new FrameScanner(10_000_000);
    scanner.push(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x04])); // 8 MiB are announced
    expect(scanner.next()).to.equal(false);
    scanner.push(Buffer.alloc(3000));
    expect(scanner.next()).to.equal(false);
    expect(scanner.bufferedBytes).to.be.within(3005, 8192);
  });

  it("keeps what was not read before the next push", () => {
    const scanner = new FrameScanner(100);
    scanner.push(Buffer.concat([publish(Buffer.from("1")), publish(Buffer.from("2"))]));
    expect(scanner.next()).to.equal(true);
    scanner.push(publish(Buffer.from("3")));
    const payloads: string[] = [];
    while (scanner.next()) payloads.push(scanner.buffer.toString("latin1", scanner.end - 1, scanner.end));
    expect(payloads).to.deep.equal(["2", "3"]);
  });
});
