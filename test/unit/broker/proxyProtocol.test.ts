import { expect } from "chai";
import fc from "fast-check";
import { type ProxyHeader, readProxyHeader } from "../../../src/broker/proxyProtocol.ts";

const signature = Buffer.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);

/** As in section 2.2 of the specification. */
function binary(kind: number, family: number, body: Buffer | number[]): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(body.length);
  return Buffer.concat([signature, Buffer.from([kind, family]), length, Buffer.from(body)]);
}

const ipv4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x07, 0x5b];
const ipv6 = (source: string): Buffer => Buffer.concat([Buffer.from(source, "hex"), Buffer.alloc(16), Buffer.alloc(4)]);
const text = (line: string): Buffer => Buffer.from(line, "latin1");
const taken = (bytes: Buffer, address: string | undefined): ProxyHeader => ({
  kind: "header",
  bytes: bytes.length,
  address,
});

const good: Array<[what: string, bytes: Buffer, address: string | undefined]> = [
  ["TCP4", text("PROXY TCP4 192.0.2.7 198.51.100.1 12345 1883\r\n"), "192.0.2.7"],
  ["TCP6", text("PROXY TCP6 2001:DB8:0:0::7 2001:db8::1 0 65535\r\n"), "2001:db8::7"],
  ["TCP6 with an IPv4 address in it", text("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), "192.0.2.7"],
  [
    "the longest TCP6",
    text(`PROXY TCP6 ${"ffff:".repeat(7)}ffff ${"ffff:".repeat(7)}ffff 65535 65535\r\n`),
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
  ],
  ["UNKNOWN", text("PROXY UNKNOWN\r\n"), undefined],
  [
    "the longest UNKNOWN",
    text(`PROXY UNKNOWN ${"ffff:".repeat(7)}ffff ${"ffff:".repeat(7)}ffff 65535 65535\r\n`),
    undefined,
  ],
  ["version 2 over IPv4", binary(0x21, 0x11, ipv4), "192.0.2.7"],
  ["version 2 for a UDP client", binary(0x21, 0x12, ipv4), "192.0.2.7"],
  ["version 2 over IPv6", binary(0x21, 0x21, ipv6("20010db8000000000000000000000007")), "2001:db8::7"],
  [
    "version 2 over IPv6 with an IPv4 address in it",
    binary(0x21, 0x21, ipv6("00000000000000000000ffffc0000207")),
    "192.0.2.7",
  ],
  ["version 2 over a unix socket", binary(0x21, 0x31, Buffer.alloc(216)), undefined],
  ["version 2 without addresses", binary(0x21, 0x00, []), undefined],
  ["version 2, LOCAL", binary(0x20, 0x00, []), undefined],
  ["version 2, LOCAL with what is not to be looked at", binary(0x20, 0x77, ipv4), undefined],
  ["version 2 with additions", binary(0x21, 0x11, [...ipv4, 0x04, 0, 3, 1, 2, 3, 0x20, 0, 1, 9]), "192.0.2.7"],
  [
    "version 2, as long as is allowed",
    binary(0x21, 0x11, Buffer.concat([Buffer.from(ipv4), Buffer.alloc(508)])),
    "192.0.2.7",
  ],
];

const bad: Array<[what: string, bytes: Buffer]> = [
  ["a CONNECT", Buffer.from("100c00044d5154540402000000000000", "hex")],
  ["lower case", text("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n")],
  ["two blanks", text("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n")],
  ["a blank at the end", text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n")],
  ["another family", text("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n")],
  ["UNKNOWN with letters behind", text("PROXY UNKNOWNS\r\n")],
  ["IPv6 in TCP4", text("PROXY TCP4 ::1 ::1 1 2\r\n")],
  ["IPv4 in TCP6", text("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n")],
  ["a zone", text("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n")],
  ["an octet of 256", text("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n")],
  ["a port above 65535", text("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n")],
  ["a port with a zero before it", text("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n")],
  ["no ports", text("PROXY TCP4 1.2.3.4 1.2.3.4\r\n")],
  ["no end in 107 bytes", text(`PROXY UNKNOWN ${"x".repeat(93)}\r\n`)],
  ["an end without CR", text(`PROXY UNKNOWN\n${"x".repeat(120)}`)],
  ["a signature with a wrong byte", Buffer.concat([signature.subarray(0, 11), Buffer.from([0x0b])])],
  ["version 1 in binary", binary(0x11, 0x11, ipv4)],
  ["another command", binary(0x22, 0x11, ipv4)],
  ["another family in binary", binary(0x21, 0x41, ipv4)],
  ["no transport", binary(0x21, 0x10, ipv4)],
  ["shorter than its addresses", binary(0x21, 0x11, ipv4.slice(1))],
  ["IPv6 with the length of IPv4", binary(0x21, 0x21, ipv4)],
  ["longer than is allowed", binary(0x21, 0x11, Buffer.concat([Buffer.from(ipv4), Buffer.alloc(509)]))],
];

describe("PROXY protocol", () => {
  for (const [what, bytes, address] of good) {
    it(`takes ${what}, whatever follows it, and not a byte before it is whole`, () => {
      expect(readProxyHeader(bytes)).to.deep.equal(taken(bytes, address));
      expect(readProxyHeader(Buffer.concat([bytes, Buffer.from("\u0010rest")]))).to.deep.equal(taken(bytes, address));
      for (let length = 0; length < bytes.length; length += 1)
        expect(readProxyHeader(bytes.subarray(0, length)), `${length}`).to.deep.equal({ kind: "part" });
    });
  }

  for (const [what, bytes] of bad) {
    it(`refuses ${what}`, () => {
      expect(readProxyHeader(bytes)).to.have.property("kind", "fault");
    });
  }

  it("refuses at the first byte that belongs to none", () => {
    expect(readProxyHeader(Buffer.from("P"))).to.have.property("kind", "part");
    expect(readProxyHeader(Buffer.from("PX"))).to.have.property("kind", "fault");
    expect(readProxyHeader(Buffer.concat([signature, Buffer.from([0x23])]))).to.have.property("kind", "fault");
  });

  it("property: random bytes make no exception, and after 536 of them it has decided", () => {
    const start = fc.constantFrom(
      Buffer.alloc(0),
      text("PROXY "),
      text("PROXY TCP4 "),
      signature,
      binary(0x21, 0x11, ipv4),
    );
    fc.assert(
      fc.property(start, fc.uint8Array({ maxLength: 700 }), (head, tail) => {
        const bytes = Buffer.concat([head, tail]);
        const header = readProxyHeader(bytes);
        if (bytes.length >= 536) expect(header.kind).not.to.equal("part");
        if (header.kind === "header") expect(header.bytes).to.be.within(15, Math.min(536, bytes.length));
      }),
      { numRuns: 2000 },
    );
  });

  it("property: a changed byte makes a fault, another header, or waits for more; never more than the bytes there are", () => {
    const any = fc.constantFrom(...good.map(([, bytes]) => bytes));
    fc.assert(
      fc.property(any, fc.nat(600), fc.nat(255), (bytes, at, value) => {
        const changed = Buffer.from(bytes);
        changed[at % changed.length] = value;
        const header = readProxyHeader(changed);
        if (header.kind === "header") expect(header.bytes).to.be.at.most(changed.length);
      }),
      { numRuns: 2000 },
    );
  });
});
