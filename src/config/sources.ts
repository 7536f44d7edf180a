import * as z from "zod";
import { codecName } from "./codecs.ts";
import {
  address,
  byType,
  checkedText,
  duration,
  entryName,
  flag,
  hexBytes,
  integer,
  list,
  oneOf,
  oneOfNumbers,
  otherwise,
  quality,
  remoteAddress,
  secret,
  section,
  size,
  text,
  topicFilter,
  topicTemplate,
} from "./fields.ts";

const maxFrameBytes = () =>
  size(1, 1024 * 1024)
    .prefault("4 KiB")
    .describe("A longer frame is dropped and counted");

/** Checksums at the end of a frame, over everything before it. crc16-ccitt is CCITT-FALSE: polynomial 0x1021, start 0xFFFF. */
const checksum = () => ({
  crc: oneOf("none", "crc8", "crc16-ccitt", "crc16-kermit", "crc16-modbus", "crc16-xmodem", "crc32").prefault("none"),
  crcEndian: oneOf("little", "big").prefault("little"),
  maxFrameBytes: maxFrameBytes(),
});

const noChecksum = () =>
  z
    .literal("none", {
      error: otherwise(
        "%v is not possible with lines, a checksum's bytes may be a line feed",
        "none; or framing cobs or slip",
      ),
    })
    .optional()
    .transform((): undefined => undefined); // the same as not written

export const framingTypes = ["lines", "cobs", "slip", "length", "fixed", "gap", "markers"] as const;

const framing = () =>
  byType(framingTypes.join(" | "), [
    section({ type: z.literal("lines"), crc: noChecksum(), maxFrameBytes: maxFrameBytes() }),
    section({ type: z.literal("cobs"), ...checksum() }),
    section({ type: z.literal("slip"), ...checksum() }),
    section({
      type: z.literal("length"),
      start: hexBytes(8).optional().describe("Bytes that every frame begins with"),
      lengthBytes: oneOfNumbers(1, 2, 4).prefault(2),
      endian: oneOf("big", "little").prefault("big"),
      adjust: integer(-1024, 1024)
        .prefault(0)
        .describe("Added to the length that was read: what it counts beyond the payload, negative"),
      ...checksum(),
    }),
    section({
      type: z.literal("fixed"),
      length: integer(1, 1_048_576).describe("Bytes of a frame, checksum included"),
      start: hexBytes(8).optional(),
      ...checksum(),
    }),
    section({
      type: z.literal("gap"),
      silence: duration(1, 60_000).prefault("10ms").describe("Ends a frame"),
      ...checksum(),
    }),
    section({
      type: z.literal("markers"),
      start: hexBytes(8),
      end: hexBytes(8),
      escape: hexBytes(1).optional().describe("The byte after it is taken as it is"),
      ...checksum(),
    }),
  ]);

/** `usb:VID:PID[:SERIAL]`, both ids four hex digits. */
export const usbPath = /^usb:[0-9a-f]{4}:[0-9a-f]{4}(:.+)?$/i;

const serialPath = () =>
  checkedText("/dev/serial/by-id/NAME or usb:VID:PID[:SERIAL]", (value) =>
    value.startsWith("usb:") && !usbPath.test(value) ? "not a USB device" : null,
  );

const psk = () =>
  section({
    identity: text("a text"),
    key: secret(),
  }).describe("Pre-shared key of DTLS, for coaps://");

const commands = () =>
  section({
    topic: topicFilter().describe("What is published here is written to the device"),
    encode: codecName(),
    expiry: duration(1).prefault("60s").describe("An older command is dropped"),
  });

const serial = () =>
  section({
    name: entryName(),
    type: z.literal("serial"),
    path: serialPath(),
    baudRate: integer(50, 4_000_000).prefault(115_200),
    dataBits: oneOfNumbers(5, 6, 7, 8).prefault(8),
    stopBits: oneOfNumbers(1, 2).prefault(1),
    parity: oneOf("none", "even", "odd").prefault("none"),
    rtscts: flag().prefault(false),
    framing: framing().prefault({ type: "lines" }),
    decode: codecName(),
    topic: topicTemplate(),
    qos: quality().prefault(1),
    ack: codecName().optional().describe("A codec: written to the device once the reading is durable"),
    commands: commands().optional(),
  });

const coap = () =>
  section({
    name: entryName(),
    type: z.literal("coap"),
    url: remoteAddress("coap", "coaps"),
    psk: psk().optional(),
    observe: flag().optional().describe("Default: true, unless `every` is given"),
    every: duration(100).optional().describe("Asks this often instead of observing"),
    decode: codecName(),
    topic: topicTemplate(),
    qos: quality().prefault(1),
  });

const coapServer = () =>
  section({
    name: entryName(),
    type: z.literal("coap-server"),
    listen: address("coap", "coaps"),
    psk: psk().optional(),
    topic: topicTemplate(),
    decode: codecName().prefault("auto").describe("auto: by Content-Format"),
    qos: quality().prefault(1),
  });

export const sources = () => list(byType("serial | coap | coap-server", [serial(), coap(), coapServer()]));

export type FramingConfig = z.output<ReturnType<typeof framing>>;
export type SerialConfig = z.output<ReturnType<typeof serial>>;
export type CoapConfig = z.output<ReturnType<typeof coap>>;
export type CoapServerConfig = z.output<ReturnType<typeof coapServer>>;
