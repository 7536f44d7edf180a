/**
 * MQTT 5.0 packets as bytes, by hand: neither our codec nor a library's, so that what is wrong in one is not right in the other.
 * Writing checks nothing, as faults are written with it; what a server sends is read by seen.ts.
 */

export const P = {
  payloadFormat: 0x01,
  expiry: 0x02,
  contentType: 0x03,
  responseTopic: 0x08,
  correlation: 0x09,
  subId: 0x0b,
  sessionExpiry: 0x11,
  assignedId: 0x12,
  serverKeepAlive: 0x13,
  authMethod: 0x15,
  authData: 0x16,
  requestProblem: 0x17,
  willDelay: 0x18,
  requestResponse: 0x19,
  responseInfo: 0x1a,
  serverReference: 0x1c,
  reason: 0x1f,
  receiveMaximum: 0x21,
  aliasMaximum: 0x22,
  alias: 0x23,
  maximumQos: 0x24,
  retainAvailable: 0x25,
  user: 0x26,
  maximumPacket: 0x27,
  wildcardAvailable: 0x28,
  subIdAvailable: 0x29,
  sharedAvailable: 0x2a,
} as const;

export type Shape = "byte" | "u16" | "u32" | "vbi" | "text" | "bytes" | "pair";
export type Value = number | string | Uint8Array | readonly [string, string];
export type Property = readonly [id: number, value: Value];

export const shapes: ReadonlyMap<number, Shape> = new Map<number, Shape>([
  ...[0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2a].map((id): [number, Shape] => [id, "byte"]),
  ...[0x13, 0x21, 0x22, 0x23].map((id): [number, Shape] => [id, "u16"]),
  ...[0x02, 0x11, 0x18, 0x27].map((id): [number, Shape] => [id, "u32"]),
  ...[0x03, 0x08, 0x12, 0x15, 0x1a, 0x1c, 0x1f].map((id): [number, Shape] => [id, "text"]),
  ...[0x09, 0x16].map((id): [number, Shape] => [id, "bytes"]),
  [0x0b, "vbi"],
  [0x26, "pair"],
]);

export const byte = (value: number): Buffer => Buffer.from([value & 0xff]);
export const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff]);

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Variable Byte Integer [MQTT-1.5.5-1]. */
export function vbi(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.from(bytes);
}

/** Two bytes of length, then the bytes: UTF-8 Encoded String or Binary Data. */
export function text(value: string | Uint8Array): Buffer {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([u16(bytes.length), bytes]);
}

export function property([id, value]: Property): Buffer {
  switch (shapes.get(id)) {
    case "byte":
      return Buffer.from([id, value as number]);
    case "u16":
      return Buffer.concat([byte(id), u16(value as number)]);
    case "u32":
      return Buffer.concat([byte(id), u32(value as number)]);
    case "vbi":
      return Buffer.concat([byte(id), vbi(value as number)]);
    case "pair":
      return Buffer.concat([byte(id), ...(value as readonly string[]).map(text)]);
    default:
      return Buffer.concat([byte(id), text(value as string)]);
  }
}

export function properties(list: readonly Property[]): Buffer {
  const bytes = Buffer.concat(list.map(property));
  return Buffer.concat([vbi(bytes.length), bytes]);
}

/** Fixed header with the right Remaining Length, then the parts. */
export function packet(first: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([byte(first), vbi(body.length), body]);
}

export interface Will {
  readonly topic?: string | Uint8Array;
  readonly payload?: string | Uint8Array;
  readonly qos?: number;
  readonly retain?: boolean;
  readonly properties?: readonly Property[];
}

export interface Connect {
  readonly id?: string | Uint8Array;
  readonly clean?: boolean;
  readonly keepAlive?: number;
  readonly properties?: readonly Property[];
  readonly will?: Will;
  readonly user?: string | Uint8Array;
  readonly password?: string | Uint8Array;
  /** Bits that are turned round in the Connect Flags. */
  readonly wrongFlags?: number;
  readonly name?: string;
  readonly version?: number;
  /** Behind the payload. */
  readonly trailing?: Uint8Array;
}

export function connect(fields: Connect = {}): Buffer {
  const { will, user, password } = fields;
  const flags =
    ((fields.clean ?? true) ? 0x02 : 0) |
    (will === undefined ? 0 : 0x04 | ((will.qos ?? 0) << 3) | (will.retain ? 0x20 : 0)) |
    (password === undefined ? 0 : 0x40) |
    (user === undefined ? 0 : 0x80);
  const optional = [user, password].filter((value) => value !== undefined);
  const willFields = will && [properties(will.properties ?? []), text(will.topic ?? "will"), text(will.payload ?? "w")];
  return packet(
    0x10,
    text(fields.name ?? "MQTT"),
    Buffer.from([fields.version ?? 5, flags ^ (fields.wrongFlags ?? 0)]),
    u16(fields.keepAlive ?? 0),
    properties(fields.properties ?? []),
    text(fields.id ?? "c"),
    ...(willFields ?? []),
    ...optional.map(text),
    fields.trailing ?? Buffer.alloc(0),
  );
}

export interface Publish {
  readonly qos?: number;
  readonly id?: number;
  readonly dup?: boolean;
  readonly retain?: boolean;
  readonly properties?: readonly Property[];
}

export function publish(topic: string | Uint8Array, payload: string | Uint8Array = "x", more: Publish = {}): Buffer {
  const qos = more.qos ?? 0;
  const flags = 0x30 | (more.dup ? 8 : 0) | (qos << 1) | (more.retain ? 1 : 0);
  const id = qos === 0 ? Buffer.alloc(0) : u16(more.id ?? 1);
  return packet(flags, text(topic), id, properties(more.properties ?? []), Buffer.from(payload as string));
}

/** Subscription Options. */
export const nl = 0x04;
export const rap = 0x08;
export const rh = (handling: number): number => handling << 4;

export type Filter = readonly [filter: string | Uint8Array, options: number];

export function subscribe(id: number, filters: readonly Filter[], props: readonly Property[] = []): Buffer {
  const payload = filters.flatMap(([filter, options]) => [text(filter), byte(options)]);
  return packet(0x82, u16(id), properties(props), ...payload);
}

export function unsubscribe(id: number, filters: ReadonlyArray<string | Uint8Array>): Buffer {
  return packet(0xa2, u16(id), properties([]), ...filters.map(text));
}

const firsts = { puback: 0x40, pubrec: 0x50, pubrel: 0x62, pubcomp: 0x70 } as const;

/** An acknowledgement; without a code it has the short form. */
export function ack(kind: keyof typeof firsts, id: number, code?: number, props?: readonly Property[]): Buffer {
  const tail = code === undefined ? [] : [byte(code), ...(props === undefined ? [] : [properties(props)])];
  return packet(firsts[kind], u16(id), ...tail);
}

export function disconnect(code?: number, props?: readonly Property[]): Buffer {
  return packet(0xe0, ...(code === undefined ? [] : [byte(code), ...(props === undefined ? [] : [properties(props)])]));
}

export const pingreq = Buffer.from([0xc0, 0]);
