import { countAckRun, scanAck } from "../wire/mqtt/ack.ts";
import { decodePacket } from "../wire/mqtt/decode.ts";
import type { DisconnectPacket } from "../wire/mqtt/packet.ts";
import { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { ackByte } from "./ackLedger.ts";
import { handleBeforeConnack, handleReauthentication } from "./authHandler.ts";
import { handleConnect } from "./connectHandler.ts";
import type { Connection } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import { handlePublish, handlePubrel, runRoom } from "./publishHandler.ts";
import type { Session } from "./session.ts";
import { handleSubscribe, handleUnsubscribe } from "./subscribeHandler.ts";

const publishType = 3;

/** A packet of a client, the scanner's current one, and those after it that are handled with it. @returns how many @throws ProtocolError */
export function handleFrame(context: BrokerContext, connection: Connection): number {
  const { session, scanner } = connection;
  if (session !== undefined && scanner.first >> 4 === publishType) return handlePublish(context, connection, session);
  const ackId = session === undefined ? 0 : scanAck(scanner.buffer, scanner.first, scanner.body, scanner.end);
  if (session !== undefined && ackId !== 0) return handleAckRun(context, connection, session, ackId);
  context.metrics.othersReceived.value += 1;
  handleOther(context, connection, session);
  return 1;
}

/** Acknowledgements that follow on each other, as they come from a client that was sent much at once. */
function handleAckRun(context: BrokerContext, connection: Connection, session: Session, firstId: number): number {
  const { scanner } = connection;
  const { first, start } = scanner;
  const count = countAckRun(scanner.buffer, start, scanner.limit, runRoom(context, connection));
  if (count > 1) scanner.skipTo(start + 4 * count);
  context.metrics.othersReceived.value += count;
  for (let id = firstId; id < firstId + count && connection.open; id += 1)
    handleAck(context, connection, session, first, id, 0);
  connection.feed?.pump(); // there may be room in the window
  return count;
}

function handleOther(context: BrokerContext, connection: Connection, session: Session | undefined): void {
  const { scanner } = connection;
  // Between CONNECT and CONNACK there are packets only while an exchange of AUTH goes on.
  const version = session === undefined && connection.authentication === undefined ? undefined : connection.version;
  const packet = decodePacket(scanner.buffer, scanner.first, scanner.body, scanner.end, version, "client");
  if (packet.kind === "connect") {
    handleConnect(context, connection, packet);
    return;
  }
  if (session === undefined) {
    handleBeforeConnack(context, connection, packet);
    return;
  }
  switch (packet.kind) {
    case "puback":
    case "pubrec":
    case "pubrel":
    case "pubcomp":
      handleAck(context, connection, session, ackByte[packet.kind], packet.packetId, packet.reasonCode);
      connection.feed?.pump();
      return;
    case "subscribe":
      handleSubscribe(context, connection, session, packet);
      return;
    case "unsubscribe":
      handleUnsubscribe(context, connection, session, packet);
      return;
    case "pingreq":
      connection.send({ kind: "pingresp" });
      return;
    case "disconnect":
      handleDisconnect(context, connection, session, packet);
      return;
    case "auth":
      handleReauthentication(context, connection, packet);
      return;
    default:
      throw new ProtocolError(reason.protocolError, `${packet.kind} from a client`);
  }
}

/** @param first byte of the packet */
function handleAck(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  first: number,
  packetId: number,
  reasonCode: number,
): void {
  switch (first) {
    case ackByte.puback:
      if (reasonCode >= 0x80) context.metrics.dropped("client-refused").value += 1;
      session.outgoing.puback(packetId);
      break;
    case ackByte.pubrec:
      session.outgoing.pubrec(packetId, reasonCode);
      break;
    case ackByte.pubcomp:
      session.outgoing.pubcomp(packetId);
      break;
    default:
      handlePubrel(context, connection, session, packetId);
  }
}

function handleDisconnect(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  packet: DisconnectPacket,
): void {
  const seconds = packet.properties?.sessionExpirySeconds;
  if (seconds !== undefined) {
    if (session.expiryMs === 0 && seconds > 0) {
      throw new ProtocolError(reason.protocolError, "a session expiry in DISCONNECT after none in CONNECT"); // section 3.14.2.2.2
    }
    session.expiryMs = Math.min(seconds * 1000, context.limits.sessionExpiryMaxMs);
  }
  connection.leave(packet.reasonCode === reason.success); // a normal one discards the will [MQTT-3.14.4-3]
}
