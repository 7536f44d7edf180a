import { connectByte, isWrittenAsVersion5, versionOfConnect } from "../wire/mqtt/connect.ts";
import type { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { connectReturn, reason } from "../wire/mqtt/reasonCodes.ts";
import type { Connection } from "./connection.ts";

/** Before the CONNACK there is no DISCONNECT [MQTT-3.14.0-1]: MQTT 5 is told in the CONNACK, 3.1.1 only of another protocol level. */
export function refuseFault(connection: Connection, { reasonCode, message }: ProtocolError): void {
  const { buffer, first, body, end } = connection.scanner;
  const unsupported = reasonCode === reason.unsupportedProtocolVersion;
  const says5 = (): boolean => first === connectByte && versionOfConnect(buffer, body, end) === 5;
  if (unsupported ? isWrittenAsVersion5(buffer, body, end) : says5()) connection.version = 5;
  if (unsupported)
    connection.refuse(reasonCode, connectReturn.unacceptableProtocolVersion); // [MQTT-3.1.2-2]
  else if (connection.version === 5) connection.refuse(reasonCode, 0, message);
  else connection.leave(true); // [MQTT-3.2.2-6] of 3.1.1
}
