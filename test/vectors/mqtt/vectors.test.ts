import { expect } from "chai";
import { encodePacket } from "../../../src/wire/mqtt/encode.ts";
import { ProtocolError } from "../../../src/wire/mqtt/protocolError.ts";
import { inSingleBytes, loadVectors, readAll, type Vector } from "./load.ts";

function refusal(act: () => unknown): number | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof ProtocolError) return error.reasonCode;
    throw error;
  }
  return undefined;
}

function title({ name, clause, version }: Vector): string {
  return `${name} [${clause}]${version === 5 ? ", MQTT 5" : ""}`;
}

/** Their reason code and properties may be missing, so a shorter body can mean the same. */
const mayLeaveOut = new Set(["puback", "pubrec", "pubrel", "pubcomp", "disconnect"]);

describe("MQTT vectors: valid packets", () => {
  for (const row of loadVectors("valid.json")) {
    const bytes = Buffer.from(row.hex, "hex");
    const version = row.version ?? undefined;
    const packet = row.packet!; // each valid row has one
    const written = row.version ?? (packet.kind === "connect" ? packet.version : 4);

    it(`${title(row)}: decode`, () => {
      expect(readAll([bytes], version, row.from)).to.deep.equal([packet]);
    });
    it(`${title(row)}: one byte at a time`, () => {
      expect(readAll(inSingleBytes(bytes), version, row.from)).to.deep.equal([packet]);
    });
    it(`${title(row)}: encode`, () => {
      const encoded = encodePacket(packet, written);
      if (row.canonical !== false) expect(encoded.toString("hex")).to.equal(row.hex);
      expect(readAll([encoded], version, row.from)).to.deep.equal([packet]);
    });
    if (mayLeaveOut.has(packet.kind)) continue;
    it(`${title(row)}: every shorter body is refused or another packet`, () => {
      for (let length = 0; length < bytes.length - 2; length += 1) {
        const cut = withBodyOf(bytes, length);
        if (refusal(() => readAll([cut], version, row.from)) !== undefined) continue;
        expect(readAll([cut], version, row.from)).to.not.deep.equal([packet]);
      }
    });
  }
});

describe("MQTT vectors: refused packets", () => {
  for (const row of loadVectors("refused.json")) {
    const bytes = Buffer.from(row.hex, "hex");
    const version = row.version ?? undefined;
    it(`${title(row)}: 0x${row.error?.toString(16)}`, () => {
      expect(refusal(() => readAll([bytes], version, row.from))).to.equal(row.error);
    });
    it(`${title(row)}: one byte at a time`, () => {
      expect(refusal(() => readAll(inSingleBytes(bytes), version, row.from))).to.equal(row.error);
    });
  }
});

/** The packet with its body cut to `length` bytes and a remaining length that agrees. */
function withBodyOf(bytes: Buffer, length: number): Buffer {
  let body = 2;
  while (bytes.readUInt8(body - 1) >= 0x80) body += 1;
  const kept = bytes.subarray(body, Math.min(body + length, bytes.length - 1));
  const size = kept.length < 0x80 ? [kept.length] : [(kept.length & 0x7f) | 0x80, kept.length >> 7];
  return Buffer.concat([bytes.subarray(0, 1), Buffer.from(size), kept]);
}
