import { decodeAck } from "./ack.ts";
import { decodeAuth } from "./auth.ts";
import { decodeConnack } from "./connack.ts";
import { decodeConnect } from "./connect.ts";
import { decodeDisconnect } from "./disconnect.ts";
import type { Packet, ProtocolVersion } from "./packet.ts";
import { malformed, violation } from "./protocolError.ts";
import { decodePublish } from "./publish.ts";
import { decodeSuback, decodeSubscribe } from "./subscribe.ts";
import { decodeUnsuback, decodeUnsubscribe } from "./unsubscribe.ts";

/** Control packet types (MQTT 5 section 2.1.2). */
const type = {
  connect: 1,
  connack: 2,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  suback: 9,
  unsubscribe: 10,
  unsuback: 11,
  pingreq: 12,
  pingresp: 13,
  disconnect: 14,
  auth: 15,
} as const;

const onlyFromClients = (1 << type.connect) | (1 << type.subscribe) | (1 << type.unsubscribe) | (1 << type.pingreq);
const onlyFromServers = (1 << type.connack) | (1 << type.suback) | (1 << type.unsuback) | (1 << type.pingresp);
/** Types whose fixed header flags must be 2; the others' must be 0, PUBLISH aside (MQTT 5 table 2-2). */
const flagsTwo = (1 << type.pubrel) | (1 << type.subscribe) | (1 << type.unsubscribe);

/**
 * Reads one whole packet, as `FrameScanner` found it, and refuses all that its receiver must refuse. Byte arrays in the packet are views
 * of `buffer`, except those of CONNECT.
 * @param version of the connection; undefined for the first packet that a server gets: only CONNECT is taken and brings its own version
 * @param from who sent it
 * @throws ProtocolError (and nothing else, whatever the bytes are)
 */
export function decodePacket(
  buffer: Buffer,
  first: number,
  body: number,
  end: number,
  version: ProtocolVersion | undefined,
  from: "client" | "server",
): Packet {
  const kind = first >> 4;
  if (version === undefined) {
    if (kind !== type.connect || from !== "client") violation("the first packet is not CONNECT"); // [MQTT-3.1.0-1]
    requireHeader(kind, first, undefined, from);
    return decodeConnect(buffer, body, end);
  }
  if (kind === type.publish) return decodePublish(buffer, first, body, end, version, from);
  requireHeader(kind, first, version, from);
  switch (kind) {
    case type.connect:
      return violation("a second CONNECT"); // [MQTT-3.1.0-2]
    case type.connack:
      return decodeConnack(buffer, body, end, version);
    case type.puback:
      return decodeAck("puback", buffer, body, end, version, from);
    case type.pubrec:
      return decodeAck("pubrec", buffer, body, end, version, from);
    case type.pubrel:
      return decodeAck("pubrel", buffer, body, end, version, from);
    case type.pubcomp:
      return decodeAck("pubcomp", buffer, body, end, version, from);
    case type.subscribe:
      return decodeSubscribe(buffer, body, end, version);
    case type.suback:
      return decodeSuback(buffer, body, end, version);
    case type.unsubscribe:
      return decodeUnsubscribe(buffer, body, end, version);
    case type.unsuback:
      return decodeUnsuback(buffer, body, end, version);
    case type.pingreq:
      return ping("pingreq", body, end);
    case type.pingresp:
      return ping("pingresp", body, end);
    case type.disconnect:
      return decodeDisconnect(buffer, body, end, version, from);
    case type.auth:
      return decodeAuth(buffer, body, end, from);
    default:
      return malformed(`packet type ${kind}`);
  }
}

/** The fixed header's type and flags, and whether this side may send it. */
function requireHeader(
  kind: number,
  first: number,
  version: ProtocolVersion | undefined,
  from: "client" | "server",
): void {
  const bit = 1 << kind;
  if (kind === 0 || (kind === type.auth && version !== 5 && version !== undefined))
    malformed(`packet type ${kind} is reserved`); // 3.1.1 table 2.1
  if (!hasRightFlags(first & 0x0f, (flagsTwo & bit) !== 0, version))
    malformed(`wrong flags in the fixed header of packet type ${kind}`); // [MQTT-2.1.3-1]
  const wrong = from === "client" ? onlyFromServers : onlyFromClients;
  if ((wrong & bit) !== 0) violation(`packet type ${kind} from a ${from}`); // MQTT 5 table 2-1
  if (kind === type.disconnect && version !== 5 && from === "server") violation("DISCONNECT from a server in 3.1.1"); // 3.1.1 table 2.1
}

/** MQTT 3.1 lets DUP be set on what is sent again, and does not say what unused flags must be (its section 2.1). */
function hasRightFlags(flags: number, two: boolean, version: ProtocolVersion | undefined): boolean {
  if (version === 3) return !two || (flags & 0b0110) === 2;
  return flags === (two ? 2 : 0);
}

function ping(kind: "pingreq" | "pingresp", body: number, end: number): Packet {
  if (body !== end) malformed(`${kind} with a body`);
  return { kind };
}
