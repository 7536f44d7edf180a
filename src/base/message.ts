/** Delivery guarantees of MQTT: at most once, at least once, exactly once (MQTT 5 section 4.3). */
export type Qos = 0 | 1 | 2;

/** The PUBLISH properties of MQTT 5 that travel with a message from publisher to subscriber (section 3.3.2.3). Absent means not sent. */
export interface MessageProperties {
  /** 0: bytes, 1: UTF-8 text. */
  payloadFormat?: 0 | 1;
  /** Seconds the message stays valid after it was accepted; 0 to 4294967295. */
  messageExpirySeconds?: number;
  contentType?: string;
  responseTopic?: string;
  correlationData?: Uint8Array;
  /** In the order received; names may repeat. */
  userProperties?: ReadonlyArray<readonly [name: string, value: string]>;
}

/**
 * A message as it goes through the gateway. Immutable once published: one object is shared by every subscriber and the journal.
 * `payload` must not be a view of a socket's read buffer when the message outlives the call (whoever stores it copies it).
 */
export interface Message {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly qos: Qos;
  readonly retain: boolean;
  readonly properties?: MessageProperties | undefined;
  /** Who brought it: `mqtt:<client id>`, `source:<name>`, `route:<name>`, `uplink:<name>`, `sys`. For logs, loops and No Local. */
  readonly source: string;
}

/**
 * A message without properties that is not retained, whose payload lies in somebody's buffer: one object is filled for one message after the other, so
 * that nothing has to be made for each. Whoever is given it keeps nothing of it.
 */
export interface PlainMessage {
  topic: string;
  source: string;
  qos: Qos;
  /** The payload is its bytes from..to. */
  bytes: DataView;
  from: number;
  to: number;
}
