/** Enhanced authentication (MQTT 5 section 4.12): SCRAM-SHA-256, at CONNECT and again while connected. */
import type { AuthPacket, Packet } from "../wire/mqtt/packet.ts";
import { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { type Identity, identityOf } from "./access/access.ts";
import { type ScramExchange, scramMethod } from "./access/scram.ts";
import type { Connection } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import { pause } from "./pauses.ts";

const reAuthenticate = 0x19;

/** An exchange under way. */
export interface Authentication {
  readonly scram: ScramExchange;
  /** What is to come from the client; checking: nothing, its proof is being looked at. */
  awaits: "first" | "final" | "checking";
  /** The CONNECT that waits for it; undefined in a re-authentication. */
  readonly connect: PendingConnect | undefined;
}

/** What to do with a CONNECT once its exchange is over. */
export interface PendingConnect {
  admit(identity: Identity, properties: AnswerProperties): void;
  refuse(why: "method" | "notAuthorized" | "wrong" | "busy"): void;
}

interface AnswerProperties {
  readonly authenticationMethod: string;
  readonly authenticationData?: Uint8Array;
}

/** CONNECT with an authentication method. */
export function beginAuthentication(
  context: BrokerContext,
  connection: Connection,
  properties: { authenticationMethod?: string; authenticationData?: Uint8Array },
  connect: PendingConnect,
): void {
  if (properties.authenticationMethod !== scramMethod) {
    connect.refuse("method"); // [MQTT-4.12.0-1]
    return;
  }
  const authentication: Authentication = { scram: context.access.scram(), awaits: "first", connect };
  connection.authentication = authentication;
  go(context, connection, authentication, properties.authenticationData);
}

/** What comes between CONNECT and CONNACK: AUTH, or a client that gives up [MQTT-3.1.2-30]. */
export function handleBeforeConnack(context: BrokerContext, connection: Connection, packet: Packet): void {
  const { authentication } = connection;
  if (packet.kind === "disconnect") {
    connection.leave(true);
    return;
  }
  if (packet.kind !== "auth" || authentication === undefined) {
    throw new ProtocolError(reason.protocolError, `${packet.kind} before CONNACK`);
  } else if (packet.properties?.authenticationMethod !== scramMethod) {
    authentication.connect?.refuse("method"); // [MQTT-4.12.0-5]
  } else if (packet.reasonCode !== reason.continueAuthentication) {
    throw new ProtocolError(reason.protocolError, "AUTH that does not continue"); // [MQTT-4.12.0-3]
  } else go(context, connection, authentication, packet.properties.authenticationData);
}

/** AUTH on a connection that is there (section 4.12.1). Everything else goes on meanwhile. */
export function handleReauthentication(context: BrokerContext, connection: Connection, packet: AuthPacket): void {
  if (connection.identity?.by !== "scram") {
    throw new ProtocolError(reason.protocolError, "AUTH without an authentication method in CONNECT"); // [MQTT-4.12.0-7]
  }
  if (packet.properties?.authenticationMethod !== scramMethod) {
    throw new ProtocolError(reason.protocolError, "AUTH with another authentication method"); // [MQTT-4.12.1-1]
  }
  const begins = packet.reasonCode === reAuthenticate;
  if (begins === (connection.authentication !== undefined)) {
    const what = begins ? "a second re-authentication" : "AUTH that continues nothing";
    throw new ProtocolError(reason.protocolError, what);
  }
  connection.authentication ??= { scram: context.access.scram(), awaits: "first", connect: undefined };
  go(context, connection, connection.authentication, packet.properties.authenticationData);
}

/** @param data of the client; undefined: it wants to be asked for its first message (RFC 4422 section 5, item 2a) */
function go(
  context: BrokerContext,
  connection: Connection,
  authentication: Authentication,
  data: Uint8Array | undefined,
): void {
  switch (authentication.awaits) {
    case "first": {
      if (data === undefined) {
        sendAuth(connection, reason.continueAuthentication, undefined);
        return;
      }
      const answer = authentication.scram.first(data);
      authentication.awaits = "final";
      if (answer === undefined) fail(connection, authentication, "notAuthorized");
      else sendAuth(connection, reason.continueAuthentication, answer);
      return;
    }
    case "final":
      authentication.awaits = "checking";
      check(context, connection, authentication, data ?? new Uint8Array(0));
      return;
    case "checking":
      throw new ProtocolError(reason.protocolError, "AUTH before the last one was answered");
    default:
      authentication.awaits satisfies never;
  }
}

/** Behind other attempts of its address, if some of those failed. A connection that waits for CONNACK is not read meanwhile. */
function check(context: BrokerContext, connection: Connection, authentication: Authentication, data: Uint8Array): void {
  const { connect, scram } = authentication;
  if (connect !== undefined) connection.pause(pause.logIn);
  const wanted = (): boolean => connection.open && connection.authentication === authentication;
  let answer: Buffer | undefined;
  const verify = () => {
    const proved = scram.final(data);
    answer = proved?.answer;
    return proved?.user;
  };
  context.access.logIns.proof({ address: connection.address, wanted }, verify, ({ kind, user }) => {
    if (!wanted()) return;
    connection.resume(pause.logIn);
    context.metrics.logIns(kind).value += 1;
    if (kind === "wrong" && context.faultLog.due(`log-in ${connection.address ?? connection.peer.listener}`)) {
      const { address, listener } = connection.peer;
      context.log.warn({ address, listener }, "a log-in failed: wrong user name or proof (SCRAM)");
    }
    connection.attempt(() => {
      const identity = user === undefined ? undefined : identityOf(user, "scram");
      // Whoever it was, users may have changed while it waited; and the session stays with the one who has it.
      const moved = connect === undefined && connection.session?.user !== user?.name;
      if (identity === undefined || moved || !context.access.holds(identity)) {
        fail(connection, authentication, kind === "busy" ? "busy" : "wrong");
        return;
      }
      connection.authentication = undefined;
      if (connect === undefined) {
        connection.identity = identity;
        sendAuth(connection, reason.success, answer);
      } else connect.admit(identity, answerProperties(answer));
    });
  });
}

function fail(connection: Connection, { connect }: Authentication, why: "notAuthorized" | "wrong" | "busy"): void {
  connection.authentication = undefined;
  if (connect !== undefined)
    connect.refuse(why); // [MQTT-4.12.0-4]
  else connection.close(why === "busy" ? reason.serverBusy : reason.notAuthorized); // [MQTT-4.12.1-2]
}

function sendAuth(connection: Connection, reasonCode: number, data: Uint8Array | undefined): void {
  const sent = connection.send({ kind: "auth", reasonCode, properties: answerProperties(data) });
  if (!sent) connection.close(reason.packetTooLarge, "an AUTH packet is larger than the client takes"); // [MQTT-3.1.2-24]
}

const answerProperties = (data: Uint8Array | undefined): AnswerProperties => ({
  authenticationMethod: scramMethod, // [MQTT-4.12.0-5]
  ...(data === undefined ? {} : { authenticationData: data }),
});
