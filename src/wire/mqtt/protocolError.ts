/** What the peer sent breaks MQTT. `reasonCode` is what an MQTT 5 peer is told (CONNACK or DISCONNECT) before its connection is closed. */
export class ProtocolError extends Error {
  readonly reasonCode: number;

  /** @param reasonCode one of `reason`, 0x80 and above */
  constructor(reasonCode: number, message: string) {
    super(message);
    this.name = "ProtocolError";
    this.reasonCode = reasonCode;
  }
}

/** The bytes cannot be parsed: Malformed Packet (MQTT 5 section 1.2). */
export function malformed(message: string): never {
  throw new ProtocolError(0x81, message);
}

/** The bytes can be parsed but say what is not allowed: Protocol Error (MQTT 5 section 1.2). */
export function violation(message: string): never {
  throw new ProtocolError(0x82, message);
}
