/** What a cloud may do to a gateway that it wants to fall over. Bytes by hand, from the specification: no codec of anybody's would write them. */
import type { CloudConnection } from "../helpers/fakeCloud.ts";

export interface HostileCase {
  readonly name: string;
  /** Instead of a CONNACK. Undefined: a good one. */
  readonly hello?: (cloud: CloudConnection) => void;
  /** At the first PUBLISH of a connection, which is never acknowledged. */
  readonly talk?: (cloud: CloudConnection, packetId: number) => void;
  /** What the uplink's `problem` says. Undefined: the cloud may do this, or it is counted; the link may stay. */
  readonly says?: RegExp;
}

const raw =
  (...bytes: number[]) =>
  (cloud: CloudConnection): void =>
    cloud.sendRaw(Buffer.from(bytes));

/** CONNACK of MQTT 5 with these properties (bytes). */
const connack = (flags: number, code: number, ...properties: number[]): ((cloud: CloudConnection) => void) =>
  raw(0x20, 3 + properties.length, flags, code, properties.length, ...properties);

const text = (value: string): number[] => {
  const bytes = [...Buffer.from(value, "latin1")];
  return [bytes.length >> 8, bytes.length & 255, ...bytes];
};

/** PUBLISH with its flags; MQTT 5 when there are properties. */
const publish = (
  flags: number,
  topic: string,
  id: number[],
  properties: number[] | undefined,
  payload = "x",
): number[] => {
  const own = properties === undefined ? [] : [properties.length, ...properties];
  const body = [...text(topic), ...id, ...own, ...Buffer.from(payload)];
  return [0x30 | flags, ...lengthOf(body.length), ...body];
};

function lengthOf(length: number): number[] {
  const low = length % 128;
  const rest = Math.floor(length / 128);
  return rest === 0 ? [low] : [low | 128, ...lengthOf(rest)];
}

/** CONNACKs that no honest MQTT 5 server sends. */
export const hellos: readonly HostileCase[] = [
  { name: "Receive Maximum 0 [3.2.2.3.3]", hello: connack(0, 0, 0x21, 0, 0), says: /receive ?maximum/i },
  { name: "Maximum Packet Size 0 [3.2.2.3.6]", hello: connack(0, 0, 0x27, 0, 0, 0, 0), says: /maximum ?packet ?size/i },
  { name: "Maximum Packet Size 1", hello: connack(0, 0, 0x27, 0, 0, 0, 1), says: /maximum ?packet ?size/i },
  { name: "Maximum QoS 2 [3.2.2.3.4]", hello: connack(0, 0, 0x24, 2), says: /maximum ?qos/i },
  { name: "Retain Available 2 [3.2.2.3.5]", hello: connack(0, 0, 0x25, 2), says: /retain ?available/i },
  {
    name: "Receive Maximum twice",
    hello: connack(0, 0, 0x21, 0, 9, 0x21, 0, 9),
    says: /receive ?maximum|twice|more than once/i,
  },
  { name: "a property that there is not", hello: connack(0, 0, 0x7f, 0), says: /propert/i },
  { name: "a property of PUBLISH", hello: connack(0, 0, 0x01, 1), says: /payload ?format/i },
  { name: "properties longer than the packet", hello: raw(0x20, 3, 0, 0, 99), says: /./ },
  { name: "properties cut short", hello: raw(0x20, 5, 0, 0, 2, 0x27, 0), says: /./ },
  { name: "reserved acknowledge flags [MQTT-3.2.2-1]", hello: connack(2, 0), says: /flag|reserved/i },
  { name: "session present with a refusal [MQTT-3.2.2-6]", hello: connack(1, 0x87), says: /./ },
  { name: "a reason code that there is not", hello: connack(0, 0x05), says: /./ },
  { name: "a length of five bytes", hello: raw(0x20, 0xff, 0xff, 0xff, 0xff, 0x01), says: /length/i },
  { name: "an empty CONNACK", hello: raw(0x20, 0), says: /./ },
  { name: "PUBLISH first [MQTT-3.2.0-1]", hello: raw(...publish(0, "gw/g1/cmd/a", [], [])), says: /before connack/i },
  { name: "an AUTH that nobody began", hello: raw(0xf0, 0), says: /./ },
  { name: "a packet of type 0", hello: raw(0, 0), says: /./ },
  {
    name: "HTTP",
    hello: (cloud) =>
      cloud.sendRaw(Buffer.from(`HTTP/1.1 400 Bad Request\r\nContent-Length: 200\r\n\r\n${"x".repeat(200)}`)),
    says: /./,
  },
  { name: "an Assigned Client Identifier for who has one", hello: connack(0, 0, 0x12, ...text("other")) },
  { name: "Topic Alias Maximum 65535", hello: connack(0, 0, 0x22, 0xff, 0xff) },
  { name: "Server Keep Alive 1", hello: connack(0, 0, 0x13, 0, 1) },
  { name: "Session Present where there was none", hello: connack(1, 0) },
];

/** After CONNACK, both versions. `five`: with MQTT 5's properties. */
export function talks(five: boolean): HostileCase[] {
  const none = five ? [] : undefined;
  // Made once: were it made for each connection, the cloud would be too busy to answer a PINGREQ in time.
  const tooLarge = Buffer.from(publish(0, "gw/g1/cmd/a", [], none, "x".repeat(2 << 20)));
  const closes = (name: string, says: RegExp, ...bytes: number[]): HostileCase => ({ name, says, talk: raw(...bytes) });
  return [
    closes("a second CONNACK", /connack/i, ...(five ? [0x20, 3, 0, 0, 0] : [0x20, 2, 0, 0])),
    closes("PUBACK of packet 0 [MQTT-2.2.1-3]", /packet id|identifier/i, 0x40, 2, 0, 0),
    closes("PUBACK cut short", /./, 0x40, 1, 0),
    closes("PUBACK with reserved flags", /./, 0x42, 2, 0, 1),
    { name: "PUBACK of a packet never sent", talk: raw(0x40, 2, 0x7f, 0xff) },
    {
      name: "PUBREC of what was sent at QoS 1",
      talk: (cloud, id) => cloud.sendRaw(Buffer.from([0x50, 2, id >> 8, id & 255])),
      says: /pubrec/i,
    },
    {
      name: "PUBCOMP of what was sent at QoS 1",
      talk: (cloud, id) => cloud.sendRaw(Buffer.from([0x70, 2, id >> 8, id & 255])),
      says: /pubcomp/i,
    },
    closes("UNSUBACK for nothing", /unsuback/i, ...(five ? [0xb0, 4, 0, 9, 0, 0] : [0xb0, 2, 0, 9])),
    closes("SUBACK for another packet", /suback/i, ...(five ? [0x90, 4, 0, 9, 0, 0] : [0x90, 3, 0, 9, 0])),
    closes("PINGREQ of a server", /pingreq|type 12/i, 0xc0, 0),
    closes(
      "SUBSCRIBE of a server",
      /subscribe|type 8/i,
      0x82,
      6 + (five ? 1 : 0),
      0,
      1,
      ...(five ? [0] : []),
      0,
      1,
      97,
      0,
    ),
    closes("PINGRESP with a body", /./, 0xd0, 1, 0),
    closes("a packet of type 0", /./, 0, 0),
    closes("a length of five bytes", /length/i, 0x30, 0xff, 0xff, 0xff, 0xff, 0x01),
    closes("PUBLISH at QoS 3 [MQTT-3.3.1-4]", /qos/i, ...publish(6, "gw/g1/cmd/a", [0, 1], none)),
    closes("PUBLISH with DUP at QoS 0 [MQTT-3.3.1-2]", /dup/i, ...publish(8, "gw/g1/cmd/a", [], none)),
    closes("PUBLISH of packet 0", /packet id|identifier/i, ...publish(2, "gw/g1/cmd/a", [0, 0], none)),
    closes("a topic with a wildcard [MQTT-3.3.2-2]", /topic|wildcard/i, ...publish(0, "gw/g1/cmd/+", [], none)),
    closes("a topic with U+0000", /topic|utf|U\+0000/i, ...publish(0, "gw/g1/cmd/\0", [], none)),
    closes("a topic that is no UTF-8", /topic|utf/i, ...publish(0, "gw/g1/cmd/\xc3", [], none)),
    closes("an empty topic", /topic/i, ...publish(0, "", [], none)),
    closes("a topic longer than its packet", /./, 0x30, 4, 0xff, 0xff, 97, 97),
    closes("200 MiB announced", /larger|large|size|bytes/i, 0x30, 0xff, 0xff, 0xff, 0x63, 0, 1, 97),
    {
      name: "2 MiB sent",
      talk: (cloud) => cloud.sendRaw(tooLarge),
      says: /larger|large|size|bytes/i,
    },
    ...(five ? talksOf5 : []),
  ];
}

const threeThousand = Buffer.from(
  Array.from({ length: 3000 }, (_, n) => publish(2, "gw/g1/cmd/a", [(n + 1) >> 8, (n + 1) & 255], [])).flat(),
);

const talksOf5: readonly HostileCase[] = [
  {
    name: "a topic alias that we never allowed",
    talk: raw(...publish(0, "gw/g1/cmd/a", [], [0x23, 0, 1])),
    says: /alias/i,
  },
  { name: "topic alias 0", talk: raw(...publish(0, "gw/g1/cmd/a", [], [0x23, 0, 0])), says: /alias/i },
  { name: "only a topic alias", talk: raw(...publish(0, "", [], [0x23, 0, 1])), says: /alias|topic/i },
  { name: "AUTH", talk: raw(0xf0, 0), says: /auth/i },
  {
    name: "PUBACK with a code that there is not",
    talk: (cloud, id) => cloud.sendRaw(Buffer.from([0x40, 3, id >> 8, id & 255, 1])),
    says: /code/i,
  },
  { name: "a DISCONNECT with a code that there is not", talk: raw(0xe0, 1, 0x01), says: /./ },
  {
    // As long as each is answered as it is read, it is not exceeded [MQTT-3.3.4-7].
    name: "3000 commands at once",
    talk: (cloud) => cloud.sendRaw(threeThousand),
  },
];
