import { isIPv4, isIPv6 } from "node:net";
import { plainAddress } from "./peerAddress.ts";

/**
 * The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt): what a balancer sends before a connection's own bytes, to say whose
 * it is. Read strictly: a byte that cannot belong to a header is a fault at once, so nothing but the beginning of a good one is ever kept.
 */
export type ProxyHeader =
  /** @property address of the client; undefined where the header names none: LOCAL (the balancer's own check), UNKNOWN, UNSPEC, a unix socket */
  | { readonly kind: "header"; readonly bytes: number; readonly address: string | undefined }
  /** Good so far, and not whole. */
  | { readonly kind: "part" }
  | { readonly kind: "fault"; readonly why: string };

/** "PROXY UNKNOWN" with the longest addresses and CRLF (section 2.1). */
const textBytesMax = 107;
/** With its additions (TLVs). The specification asks senders to stay in one segment of the smallest MTU, 536 bytes. */
const headerBytesMax = 536;

const textStart = Buffer.from("PROXY ");
const signature = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const fixedBytes = 16;
const part: ProxyHeader = { kind: "part" };

/** @param bytes what came on the connection so far, the header at its beginning */
export function readProxyHeader(bytes: Buffer): ProxyHeader {
  if (begins(bytes, signature)) return bytes.length < fixedBytes ? startOfBinary(bytes) : readBinary(bytes);
  if (begins(bytes, textStart)) return readText(bytes);
  return fault("no PROXY header");
}

/** Whether `bytes`, or as much as there is of them, is how `start` begins. */
function begins(bytes: Buffer, start: Buffer): boolean {
  const length = Math.min(bytes.length, start.length);
  return bytes.compare(start, 0, length, 0, length) === 0;
}

const fault = (why: string): ProxyHeader => ({ kind: "fault", why });

// ---------------------------------------------------------------- version 1: a line of text

function readText(bytes: Buffer): ProxyHeader {
  const end = bytes.subarray(0, textBytesMax).indexOf("\r\n");
  if (end < 0) return bytes.length < textBytesMax ? part : fault(`version 1: no end within ${textBytesMax} bytes`);
  const line = bytes.toString("latin1", 0, end);
  const length = end + 2;
  if (/^PROXY UNKNOWN(?: |$)/.test(line)) return { kind: "header", bytes: length, address: undefined };
  const [, family, source = "", target = "", ...ports] = line.split(" ");
  const isAddress = family === "TCP4" ? isIPv4 : family === "TCP6" ? isPlainIPv6 : undefined;
  if (isAddress === undefined) return fault("version 1: neither TCP4, TCP6 nor UNKNOWN");
  if (!isAddress(source) || !isAddress(target)) return fault(`version 1: not an address of ${family}`);
  if (ports.length !== 2 || !ports.every(isPort)) return fault("version 1: not two ports");
  return { kind: "header", bytes: length, address: plainAddress(source) };
}

/** Without a zone: the balancer's interfaces are not ours. */
const isPlainIPv6 = (text: string): boolean => isIPv6(text) && !text.includes("%");

const isPort = (text: string): boolean => /^(0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535;

// ---------------------------------------------------------------- version 2: binary

const command = { local: 0x20, proxy: 0x21 } as const;
/** Bytes of the addresses for each family and transport that there is. TCP or UDP: HTTP/3 and QUIC end at the balancer. */
const addressBytes: Readonly<Record<number, number>> = {
  0: 0, // UNSPEC
  17: 12, // IPv4: 2 x 4, 2 ports
  18: 12,
  33: 36, // IPv6: 2 x 16, 2 ports
  34: 36,
  49: 216, // unix: 2 x 108
  50: 216,
};

function startOfBinary(bytes: Buffer): ProxyHeader {
  const [kind] = bytes.subarray(signature.length);
  return kind === undefined || isCommand(kind) ? part : wrongCommand;
}

const isCommand = (kind: number): boolean => kind === command.local || kind === command.proxy;
const wrongCommand = fault("version 2: neither LOCAL nor PROXY of version 2");

function readBinary(bytes: Buffer): ProxyHeader {
  const kind = bytes.readUInt8(signature.length);
  if (!isCommand(kind)) return wrongCommand;
  const family = bytes.readUInt8(signature.length + 1);
  const length = bytes.readUInt16BE(signature.length + 2);
  const total = fixedBytes + length;
  if (total > headerBytesMax) return fault(`version 2: ${total} bytes (at most ${headerBytesMax})`);
  if (kind === command.proxy) {
    const needed = addressBytes[family];
    if (needed === undefined) return fault("version 2: an unknown address family");
    if (length < needed) return fault("version 2: shorter than its addresses");
  }
  if (bytes.length < total) return part;
  // LOCAL: whatever else it says is not to be looked at. TLVs behind the addresses are passed over: the certificate name in the SSL one as
  // well, for only a certificate that we have checked is a user.
  return { kind: "header", bytes: total, address: kind === command.local ? undefined : sourceOf(bytes, family >> 4) };
}

function sourceOf(bytes: Buffer, family: number): string | undefined {
  if (family === 1) return bytes.subarray(fixedBytes, fixedBytes + 4).join(".");
  if (family !== 2) return undefined;
  const groups = Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(fixedBytes + 2 * at).toString(16));
  return plainAddress(groups.join(":"));
}
