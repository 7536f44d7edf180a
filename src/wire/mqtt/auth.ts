import { Cursor } from "./bytes.ts";
import type { AuthPacket } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed, violation } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/** Only AUTH has it (MQTT 5 table 3-11). */
const reAuthenticate = 0x19;

/** AUTH (MQTT 5 section 3.15). @throws ProtocolError 0x81, 0x82 */
export function decodeAuth(buffer: Buffer, body: number, end: number, from: "client" | "server"): AuthPacket {
  const cursor = new Cursor(buffer, body, end);
  const packet: AuthPacket = { kind: "auth", reasonCode: reason.success };
  if (cursor.remaining > 0) {
    packet.reasonCode = cursor.u8();
    const properties = decodeProperties(cursor, holder.auth);
    if (properties !== undefined) packet.properties = properties;
  }
  cursor.finish();
  const { reasonCode } = packet;
  if (reasonCode !== reason.success && reasonCode !== reason.continueAuthentication && reasonCode !== reAuthenticate) {
    malformed(`unknown AUTH code ${reasonCode}`); // [MQTT-3.15.2-1]
  }
  if (reasonCode === (from === "client" ? reason.success : reAuthenticate)) {
    violation(`AUTH code ${reasonCode} from a ${from}`); // MQTT 5 table 3-11
  }
  // Section 3.15.2.2.2 wants a method in every AUTH, section 3.15.2.1 lets a success leave out all properties.
  if (reasonCode !== reason.success && packet.properties?.authenticationMethod === undefined) {
    violation("AUTH without an authentication method");
  }
  return packet;
}
