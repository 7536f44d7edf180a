/** What expected.json beside a kept store says: what must be found in it. */

export interface ExpectedMessage {
  readonly text: string;
  readonly topic: string;
  readonly qos: number;
  readonly priority: number;
  readonly seq: number;
  /** The rule's definition. */
  readonly rule: string;
  readonly position: number;
  readonly acceptedAtMs: number;
  readonly wallMs: number;
  /** To an hour. */
  readonly limited: boolean;
  /** With MQTT 5 properties, the same in all. */
  readonly properties: boolean;
}

export interface ExpectedStore {
  /** The wall clock when it ended. */
  readonly wallMs: number;
  /** By uplink, in the order in which they must come out. */
  readonly lanes: Record<string, ExpectedMessage[]>;
  readonly queues: Record<string, { next: number; waiting: Array<{ ordinal: number; meta: number; text: string }> }>;
  readonly retained: Record<string, string>;
  /** Of "cloud": in format 1 a kill lost what had been counted since the last segment began. */
  readonly refused: number;
  /** Values in hex. */
  readonly maps: Record<string, Record<string, string>>;
  /** The text of a message whose write was torn: it must not be there. */
  readonly torn: string;
}
