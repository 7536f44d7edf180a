import type { QueuedMessage } from "../base/contracts.ts";
import { type LinkFault, type LinkFaultCode, linkFault } from "../base/linkFaults.ts";
import type { ConnackPacket, DisconnectPacket } from "../wire/mqtt/packet.ts";
import { connectReturn, reason } from "../wire/mqtt/reasonCodes.ts";

/** What the cloud said, as something that a person can act on. */

const returnTexts: Readonly<Record<number, string>> = {
  [connectReturn.unacceptableProtocolVersion]: "it does not speak MQTT 3.1.1; try version: 5",
  [connectReturn.identifierRejected]: "it does not take this clientId",
  [connectReturn.serverUnavailable]: "it is unavailable",
  [connectReturn.badUserNameOrPassword]: "wrong user name or password",
  [connectReturn.notAuthorized]: "not authorized",
};

export const notVersion5 = "it does not speak MQTT 5; try version: 4";

const reasonTexts: Readonly<Record<number, string>> = {
  [reason.unsupportedProtocolVersion]: notVersion5,
  [reason.clientIdentifierNotValid]: "it does not take this clientId",
  [reason.badUserNameOrPassword]: "wrong user name or password",
  [reason.notAuthorized]: "not authorized",
  [reason.serverUnavailable]: "it is unavailable",
  [reason.serverBusy]: "it is busy",
  [reason.banned]: "this client is banned",
  [reason.serverShuttingDown]: "it is shutting down",
  [reason.keepAliveTimeout]: "it heard nothing from us for too long",
  [reason.sessionTakenOver]: "another client connected with the same clientId",
  [reason.topicNameInvalid]: "it does not take a topic that we sent",
  [reason.receiveMaximumExceeded]: "too many unacknowledged messages",
  [reason.packetTooLarge]: "a message was too large for it; set maxPacketSize",
  [reason.messageRateTooHigh]: "we send too fast; set drain",
  [reason.quotaExceeded]: "a quota is used up",
  [reason.administrativeAction]: "by an administrator",
  [reason.payloadFormatInvalid]: "it does not take a payload that we sent",
  [reason.retainNotSupported]: "it does not take retained messages",
  [reason.qosNotSupported]: "it does not take this QoS; set maxQos",
  [reason.useAnotherServer]: "it wants us to use another server",
  [reason.serverMoved]: "it has moved",
  [reason.connectionRateExceeded]: "we connect too often",
  [reason.maximumConnectTime]: "its time for one connection is up",
};

/** CONNACK of 3.1.1. */
const returnFaults: Readonly<Record<number, LinkFaultCode>> = {
  [connectReturn.unacceptableProtocolVersion]: "version-refused",
  [connectReturn.identifierRejected]: "client-id-refused",
  [connectReturn.serverUnavailable]: "cloud-busy",
  [connectReturn.badUserNameOrPassword]: "bad-credentials",
  [connectReturn.notAuthorized]: "not-authorized",
};

/** CONNACK and DISCONNECT of MQTT 5. */
const reasonFaults: Readonly<Record<number, LinkFaultCode>> = {
  [reason.unsupportedProtocolVersion]: "version-refused",
  [reason.clientIdentifierNotValid]: "client-id-refused",
  [reason.badUserNameOrPassword]: "bad-credentials",
  [reason.badAuthenticationMethod]: "bad-credentials",
  [reason.notAuthorized]: "not-authorized",
  [reason.banned]: "banned",
  [reason.serverUnavailable]: "cloud-busy",
  [reason.serverBusy]: "cloud-busy",
  [reason.serverShuttingDown]: "cloud-busy",
  [reason.quotaExceeded]: "rate-limited",
  [reason.messageRateTooHigh]: "rate-limited",
  [reason.connectionRateExceeded]: "rate-limited",
  [reason.useAnotherServer]: "use-another-server",
  [reason.serverMoved]: "use-another-server",
  [reason.sessionTakenOver]: "session-taken-over",
};

/** Why CONNACK says no. */
export function refusalFault({ reasonCode, properties }: ConnackPacket, version: number): LinkFault {
  const text = (version === 4 ? returnTexts : reasonTexts)[reasonCode] ?? hex(reasonCode);
  const code = (version === 4 ? returnFaults : reasonFaults)[reasonCode] ?? "connect-refused";
  return linkFault(code, `the cloud refused the connection: ${text}${ownWords(properties)}${otherServer(properties)}`);
}

/** Why a DISCONNECT came. */
export function disconnectFault({ reasonCode, properties }: DisconnectPacket): LinkFault {
  const text = reasonTexts[reasonCode] ?? hex(reasonCode);
  const code = reasonFaults[reasonCode] ?? "disconnected";
  return linkFault(code, `the cloud disconnected us: ${text}${ownWords(properties)}${otherServer(properties)}`);
}

/** Shown, and not followed: whoever can speak for the broker once could send our data elsewhere for ever. */
function otherServer(properties: { serverReference?: string } | undefined): string {
  const text = properties?.serverReference;
  return text === undefined ? "" : `: ${printable(text)}`;
}

/** MQTT 5 table 3-4, and codes of other packets that clouds were seen to use. */
const messageTexts: Readonly<Record<number, string>> = {
  [reason.unspecifiedError]: "unspecified error",
  [reason.implementationSpecificError]: "implementation specific error",
  [reason.notAuthorized]: "not authorized",
  [reason.topicNameInvalid]: "topic name invalid",
  [reason.packetIdentifierInUse]: "packet identifier in use",
  [reason.packetTooLarge]: "packet too large",
  [reason.messageRateTooHigh]: "message rate too high",
  [reason.quotaExceeded]: "quota exceeded",
  [reason.payloadFormatInvalid]: "payload format invalid",
  [reason.retainNotSupported]: "retain not supported",
  [reason.qosNotSupported]: "QoS not supported",
};

/** Why PUBACK says no to a message. */
export function refusedMessageText(code: number, properties: { reasonString?: string } | undefined): string {
  return `${messageTexts[code] ?? hex(code)}${ownWords(properties)}`;
}

/** `0x87` */
export const hexCode = (code: number): string => `0x${code.toString(16).padStart(2, "0")}`;

const hex = (code: number): string => `reason code ${hexCode(code)}`;

/** The peer's own words are data: shortened, and without line breaks, before they reach a log. */
function ownWords(properties: { reasonString?: string } | undefined): string {
  const text = properties?.reasonString;
  return text === undefined ? "" : ` (${printable(text)})`;
}

export const printable = (text: string): string => text.slice(0, 200).replace(/[^\x20-\x7e]/g, "?");

/** Which message it is, for people who look for it in the cloud's log. */
export function messageText({ seq, message }: QueuedMessage): string {
  return `the message with seq ${seq}, ${message.payload.length} bytes on ${JSON.stringify(message.topic.slice(0, 200))}`;
}
