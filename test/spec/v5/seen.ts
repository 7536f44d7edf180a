/** Reads what a server sends, strictly: anything that chapters 2 and 3 do not allow it is an error. */
import { P, type Property, type Shape, shapes, type Value } from "./frames.ts";

export type Kind =
  | "CONNACK"
  | "PUBLISH"
  | "PUBACK"
  | "PUBREC"
  | "PUBREL"
  | "PUBCOMP"
  | "SUBACK"
  | "UNSUBACK"
  | "PINGRESP"
  | "DISCONNECT"
  | "AUTH";

/** What a server sent. Fields that the kind has not are 0, false or empty. */
export interface Seen {
  readonly kind: Kind;
  readonly id: number;
  readonly codes: readonly number[];
  readonly present: boolean;
  readonly topic: string;
  readonly payload: string;
  readonly qos: number;
  readonly dup: boolean;
  readonly retain: boolean;
  readonly properties: readonly Property[];
  readonly bytes: Buffer;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  take(count: number): Buffer {
    if (count > this.left) throw new Error(`packet too short: ${this.#bytes.toString("hex")}`);
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }

  number(count: number): number {
    return this.take(count).readUIntBE(0, count);
  }

  vbi(): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const next = this.number(1);
      value += (next & 0x7f) * 2 ** shift;
      if (next < 0x80) {
        if (next === 0 && shift > 0) throw new Error("a Variable Byte Integer that is not minimal");
        return value;
      }
    }
    throw new Error("a Variable Byte Integer of more than 4 bytes");
  }

  text(): string {
    const value = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(this.number(2)));
    if (value.includes("\0")) throw new Error("U+0000 in a string");
    return value;
  }
}

function value(reader: Reader, shape: Shape): Value {
  if (shape === "byte") return reader.number(1);
  if (shape === "u16") return reader.number(2);
  if (shape === "u32") return reader.number(4);
  if (shape === "vbi") return reader.vbi();
  if (shape === "text") return reader.text();
  if (shape === "bytes") return Buffer.from(reader.take(reader.number(2)));
  return [reader.text(), reader.text()];
}

/** What may be there more than once: User Property, and in a PUBLISH of a server Subscription Identifier. */
const repeated: readonly number[] = [P.user, P.subId];

function readProperties(reader: Reader, allowed: readonly number[]): Property[] {
  const inner = new Reader(reader.take(reader.vbi()));
  const list: Property[] = [];
  while (inner.left > 0) {
    const id = inner.vbi();
    const shape = shapes.get(id);
    if (shape === undefined || !allowed.includes(id)) throw new Error(`property ${id} does not belong here`);
    if (!repeated.includes(id) && list.some(([other]) => other === id)) throw new Error(`property ${id} twice`);
    list.push([id, value(inner, shape)]);
  }
  return list;
}

interface Rules {
  readonly kind: Kind;
  readonly flags: number;
  readonly codes: readonly number[];
  readonly properties: readonly number[];
}

const acknowledged = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const told = [P.reason, P.user];
const connackProperties = [
  ...[0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a],
];
const connackCodes = [
  ...[0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a],
  ...[0x9b, 0x9c, 0x9d, 0x9f],
];
const disconnectCodes = [
  ...[0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98],
  ...[0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2],
];
const subackCodes = [0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];

/** Tables 2-1, 2-2, 2-4 and the reason codes of chapter 3, as far as they are a server's to send. */
const rules = new Map<number, Rules>([
  [2, { kind: "CONNACK", flags: 0, codes: connackCodes, properties: connackProperties }],
  [3, { kind: "PUBLISH", flags: -1, codes: [], properties: [0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26] }],
  [4, { kind: "PUBACK", flags: 0, codes: acknowledged, properties: told }],
  [5, { kind: "PUBREC", flags: 0, codes: acknowledged, properties: told }],
  [6, { kind: "PUBREL", flags: 2, codes: [0, 0x92], properties: told }],
  [7, { kind: "PUBCOMP", flags: 0, codes: [0, 0x92], properties: told }],
  [9, { kind: "SUBACK", flags: 0, codes: subackCodes, properties: told }],
  [11, { kind: "UNSUBACK", flags: 0, codes: [0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91], properties: told }],
  [13, { kind: "PINGRESP", flags: 0, codes: [], properties: [] }],
  [14, { kind: "DISCONNECT", flags: 0, codes: disconnectCodes, properties: [P.serverReference, ...told] }],
  [15, { kind: "AUTH", flags: 0, codes: [0, 0x18], properties: [P.authMethod, P.authData, ...told] }],
]);

const nothing = {
  ...{ id: 0, codes: [] as number[], present: false, topic: "", payload: "", qos: 0, dup: false, retain: false },
  properties: [] as Property[],
};

function readPublish(reader: Reader, flags: number, allowed: readonly number[]): Omit<Seen, "kind" | "bytes"> {
  const qos = (flags >> 1) & 3;
  if (qos === 3) throw new Error("QoS 3");
  const topic = reader.text();
  const id = qos === 0 ? 0 : reader.number(2);
  if (qos > 0 && id === 0) throw new Error("packet id 0");
  const list = readProperties(reader, allowed);
  const payload = reader.take(reader.left).toString();
  return { ...nothing, topic, id, payload, qos, dup: flags >= 8, retain: (flags & 1) === 1, properties: list };
}

function readBody(reader: Reader, { kind, properties: allowed }: Rules): Omit<Seen, "kind" | "bytes"> {
  if (kind === "PINGRESP") return nothing;
  if (kind === "CONNACK") {
    const flags = reader.number(1);
    if (flags > 1) throw new Error("reserved bits in the Connect Acknowledge Flags");
    const codes = [reader.number(1)];
    return { ...nothing, present: flags === 1, codes, properties: readProperties(reader, allowed) };
  }
  const id = kind === "DISCONNECT" || kind === "AUTH" ? 0 : reader.number(2);
  if (kind === "SUBACK" || kind === "UNSUBACK") {
    const list = readProperties(reader, allowed);
    return { ...nothing, id, properties: list, codes: [...reader.take(reader.left)] };
  }
  const codes = [reader.left > 0 ? reader.number(1) : 0];
  return { ...nothing, id, codes, properties: reader.left > 0 ? readProperties(reader, allowed) : [] };
}

/** Reads one packet of a server. @throws when anything in it is not as the specification has it */
export function read(bytes: Buffer): Seen {
  const first = bytes.readUInt8(0);
  const rule = rules.get(first >> 4);
  if (rule === undefined) throw new Error(`a server does not send this: ${bytes.toString("hex")}`);
  const reader = new Reader(bytes.subarray(1));
  if (reader.vbi() !== reader.left) throw new Error("wrong Remaining Length");
  const flags = first & 15;
  if (rule.flags >= 0 && flags !== rule.flags) throw new Error(`${rule.kind} with flags ${flags}`);
  const publishing = rule.kind === "PUBLISH";
  const body = publishing ? readPublish(reader, flags, rule.properties) : readBody(reader, rule);
  if (reader.left > 0) throw new Error(`${rule.kind} with ${reader.left} bytes too many`);
  const wrong = body.codes.filter((code) => !rule.codes.includes(code));
  if (wrong.length > 0) throw new Error(`${rule.kind} with reason code ${wrong}`);
  return { ...body, kind: rule.kind, bytes };
}

/** Length of the first packet in these bytes; undefined while its header or its body is not complete. */
export function firstLength(bytes: Buffer): number | undefined {
  let length = 0;
  for (let at = 1; at < bytes.length && at < 5; at += 1) {
    const next = bytes.readUInt8(at);
    length += (next & 0x7f) * 128 ** (at - 1);
    if (next < 0x80) return bytes.length >= length + at + 1 ? length + at + 1 : undefined;
  }
  return undefined;
}

const hex = (code: number): string => code.toString(16).padStart(2, "0");
const printed = (item: Value): string =>
  item instanceof Uint8Array ? Buffer.from(item).toString("hex") : String(item);

/** One line: `PUBLISH q1 t=x dup retain 2:90 38:a,1`, `PUBACK 7 00`, `SUBACK 9 01,80`, `CONNACK 00 present`. Packet ids of PUBLISH are left out. */
export function line(seen: Seen): string {
  const { kind, id, codes } = seen;
  if (kind === "PUBLISH") {
    const marks = `${seen.dup ? " dup" : ""}${seen.retain ? " retain" : ""}`;
    const list = seen.properties.map(([name, item]) => ` ${name}:${printed(item)}`).join("");
    return `PUBLISH q${seen.qos} ${seen.topic}=${seen.payload}${marks}${list}`;
  }
  const named = id === 0 ? "" : ` ${id}`;
  return `${kind}${named}${codes.length === 0 ? "" : ` ${codes.map(hex)}`}${seen.present ? " present" : ""}`;
}

/** The value of a property, or undefined. */
export const propertyOf = (seen: Seen, id: number): Value | undefined =>
  seen.properties.find(([other]) => other === id)?.[1];
