import type { Packet } from "../wire/mqtt/packet.ts";

/** The properties that say why; only MQTT 5 has them. */
export function explanation(why: string | undefined): { reasonString: string } | undefined {
  return why === undefined ? undefined : { reasonString: why };
}

/** Without its Reason String, which is all that these have beside what they must say. */
export function unexplained(packet: Packet): Packet {
  const explains = packet.kind === "disconnect" || (packet.kind === "connack" && packet.reasonCode !== 0);
  return explains ? { ...packet, properties: undefined } : packet;
}
