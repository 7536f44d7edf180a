import type { Message } from "../../base/message.ts";
import type { FramingOptions } from "../../wire/frame/framer.ts";
import type { PortSettings } from "./port.ts";

export interface SerialSourceOptions {
  readonly name: string;
  /** A device file (best one of /dev/serial/by-id), or `usb:VID:PID[:SERIAL]`. */
  readonly path: string;
  readonly baudRate: number;
  readonly dataBits?: PortSettings["dataBits"] | undefined;
  readonly stopBits?: PortSettings["stopBits"] | undefined;
  readonly parity?: PortSettings["parity"] | undefined;
  /** Hardware flow control. With it a device that sends faster than readings become durable is held off, without it it loses frames. */
  readonly rtscts?: boolean | undefined;
  readonly framing: FramingOptions;
  /** Makes the acknowledgement of a durable reading. */
  readonly ack?: AckOptions | undefined;
  readonly commands?: CommandOptions | undefined;
  /** Readings of this port that may wait to become durable; more are dropped unacknowledged. */
  readonly maxPending?: number | undefined;
  /** Bytes of acknowledgements that may wait for a device that does not read. */
  readonly maxAckBytes?: number | undefined;
  /** Waits between attempts to open the port. */
  readonly reopen?: { readonly minMs: number; readonly maxMs: number } | undefined;
}

export interface AckOptions {
  /** @param value the decoded reading. @throws TidegateError when it lacks a field; counted, nothing is sent. */
  encode(value: unknown): Uint8Array;
}

export interface CommandOptions {
  /** Topic filter of the messages that are commands. */
  readonly topic: string;
  /** The payload of the frame. @throws TidegateError when the message is no command; counted. */
  encode(message: Message): Uint8Array;
  /** How long a command may wait for the device; the message's own expiry counts when it is shorter. */
  readonly expiryMs: number;
  readonly maxQueued?: number | undefined;
}

export const serialDefaults = {
  dataBits: 8,
  stopBits: 1,
  parity: "none",
  rtscts: false,
  maxPending: 4096,
  maxAckBytes: 16 * 1024,
  maxQueued: 64,
  // Looking for a device costs next to nothing, and who plugs it in again waits for it.
  reopen: { minMs: 500, maxMs: 5000 },
} as const;
