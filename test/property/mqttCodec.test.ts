import { expect } from "chai";
import fc from "fast-check";
import { encodePacket } from "../../src/wire/mqtt/encode.ts";
import { FrameScanner } from "../../src/wire/mqtt/frameScanner.ts";
import type { Packet, ProtocolVersion } from "../../src/wire/mqtt/packet.ts";
import { ProtocolError } from "../../src/wire/mqtt/protocolError.ts";
import { anySent, mutations, type Sent, sentPacket, stream, withTrueLength } from "../vectors/mqtt/arbitraries.ts";
import { ownBytes, readAll } from "../vectors/mqtt/load.ts";

function versionFor(packet: Packet, version: ProtocolVersion): ProtocolVersion | undefined {
  return packet.kind === "connect" ? undefined : version;
}

/** Cut at these offsets (any order, any number; equal ones give empty chunks). */
function cutAt(bytes: Buffer, offsets: readonly number[]): Buffer[] {
  const cuts = [...offsets.map((offset) => offset % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return cuts.map((cut, index) => bytes.subarray(cuts[index - 1] ?? 0, cut));
}

describe("MQTT codec properties", () => {
  for (const [kind, arbitrary] of Object.entries(sentPacket)) {
    it(`decode(encode(p)) is p: ${kind}`, () => {
      fc.assert(
        fc.property(arbitrary, ({ version, from, packet }: Sent) => {
          const encoded = encodePacket(packet, version);
          expect(readAll([encoded], versionFor(packet, version), from)).to.deep.equal([ownBytes(packet)]);
        }),
        { numRuns: 250 },
      );
    });
  }

  it("any cutting of a stream gives the same packets", () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat({ max: 5000 }), { maxLength: 30 }), ({ version, from, packets }, offsets) => {
        const bytes = Buffer.concat(packets.map((packet) => encodePacket(packet, version)));
        expect(readAll(cutAt(bytes, offsets), version, from)).to.deep.equal(ownBytes(packets));
      }),
      { numRuns: 200 },
    );
  });

  it("packets read from different chunks do not disturb each other", () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat({ max: 5000 }), { maxLength: 10 }), ({ version, packets }, offsets) => {
        const bytes = Buffer.concat(packets.map((packet) => encodePacket(packet, version)));
        const scanner = new FrameScanner(65_536);
        const seen: Buffer[] = [];
        for (const chunk of cutAt(bytes, offsets)) {
          scanner.push(chunk);
          while (scanner.next()) seen.push(scanner.buffer.subarray(scanner.start, scanner.end)); // views, kept
        }
        expect(Buffer.concat(seen).equals(bytes)).to.equal(true);
      }),
      { numRuns: 150 },
    );
  });

  const wild = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    mutations(anySent.map(({ packet, version }) => encodePacket(packet, version))),
    mutations(anySent.map(({ packet, version }) => encodePacket(packet, version))).map(withTrueLength),
  );

  it("whatever the bytes are: a packet or a ProtocolError, and never more memory than the limit", () => {
    fc.assert(
      fc.property(
        fc.array(wild, { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat({ max: 500 }), { maxLength: 8 }),
        fc.constantFrom<ProtocolVersion | undefined>(undefined, 3, 4, 5),
        fc.constantFrom<"client" | "server">("client", "server"),
        fc.integer({ min: 5, max: 300 }),
        (pieces, offsets, version, from, limit) => {
          const scanner = new FrameScanner(limit);
          for (const chunk of cutAt(Buffer.concat(pieces), offsets)) {
            try {
              readAll([chunk], version, from, scanner);
            } catch (error) {
              if (!(error instanceof ProtocolError)) throw error;
              expect(error.reasonCode).to.be.within(0x80, 0x95);
              return;
            }
            expect(scanner.bufferedBytes).to.be.at.most(limit);
          }
        },
      ),
      { numRuns: 1500 },
    );
  });

  it("what is accepted of mutated bytes can be written and means the same again", () => {
    let accepted = 0;
    fc.assert(
      fc.property(anySent, fc.nat(), (sent, seed) => {
        const original = encodePacket(sent.packet, sent.version);
        const version = versionFor(sent.packet, sent.version);
        for (const mutated of fc.sample(mutations(fc.constant(original)).map(withTrueLength), { seed, numRuns: 10 })) {
          let packets: Packet[];
          try {
            packets = readAll([mutated], version, sent.from);
          } catch (error) {
            if (error instanceof ProtocolError) continue;
            throw error;
          }
          for (const packet of packets) {
            accepted += 1;
            const own = packet.kind === "connect" ? packet.version : sent.version;
            expect(readAll([encodePacket(packet, own)], version, sent.from)).to.deep.equal([packet]);
          }
        }
      }),
      { numRuns: 250 },
    );
    expect(accepted).to.be.above(100); // else it would have tested nothing
  });
});
