import { expect } from "chai";
import {
  ack,
  byte,
  connect,
  disconnect,
  P,
  type Property,
  packet,
  pingreq,
  properties,
  publish,
  subscribe,
  text,
  u16,
  unsubscribe,
} from "./frames.ts";
import { fault, joined, kept, open, refusal, refused, withRig, witness } from "./support.ts";

const bad: ReadonlyArray<readonly [string, string]> = [
  ["a lone continuation byte", "61 80 62"],
  ["a sequence cut short", "61 c3"],
  ["an overlong slash", "c0 af"],
  ["an overlong U+0000", "c0 80"],
  ["an overlong euro sign", "f0 82 82 ac"],
  ["a high surrogate", "ed a0 80"],
  ["a low surrogate", "ed bf bf"],
  ["a pair of surrogates (CESU-8)", "ed a0 bd ed b8 80"],
  ["beyond U+10FFFF", "f4 90 80 80"],
  ["a byte that UTF-8 has not", "ff"],
  ["U+0000", "61 00 62"],
];
const sequences = bad.map(([name, hex]) => [name, Buffer.from(hex.replaceAll(" ", ""), "hex")] as const);

const pair = (name: Uint8Array, value: Uint8Array): Buffer => Buffer.concat([byte(P.user), text(name), text(value)]);
const listed = (bytes: Uint8Array): Buffer => Buffer.concat([byte(bytes.length), bytes]);
const good = Buffer.from("good");
const one = (id: number, bytes: Buffer): Property => [id, bytes];

/** CONNECT with properties as bytes. */
const connectWith = (list: Uint8Array): Buffer =>
  packet(0x10, text("MQTT"), Buffer.from([5, 2, 0, 0]), listed(list), text("c"));

const inConnect: ReadonlyArray<readonly [string, string, (bytes: Buffer) => Buffer]> = [
  ["[MQTT-3.1.3-4]", "the client id", (id) => connect({ id })],
  ["[MQTT-3.1.3-11]", "the will topic", (topic) => connect({ will: { topic } })],
  ["[MQTT-3.1.3-12]", "the user name", (user) => connect({ user })],
  ["[MQTT-1.5.7-1]", "a User Property's name", (bytes) => connectWith(pair(bytes, good))],
  ["[MQTT-1.5.7-1]", "a User Property's value", (bytes) => connectWith(pair(good, bytes))],
  ["[3.1.2.11.9]", "the Authentication Method", (bytes) => connect({ properties: [one(P.authMethod, bytes)] })],
  [
    "[MQTT-3.3.2-19]",
    "the will's Content Type",
    (bytes) => connect({ will: { properties: [one(P.contentType, bytes)] } }),
  ],
  [
    "[MQTT-3.3.2-13]",
    "the will's Response Topic",
    (bytes) => connect({ will: { properties: [one(P.responseTopic, bytes)] } }),
  ],
];
const withPair = (first: number, tail: Uint8Array) => (bytes: Buffer) =>
  packet(first, u16(1), first === 0x82 || first === 0xa2 ? Buffer.alloc(0) : byte(0), listed(pair(good, bytes)), tail);
const later: ReadonlyArray<readonly [string, string, (bytes: Buffer) => Buffer]> = [
  ["[MQTT-3.3.2-1]", "the topic", (topic) => publish(topic)],
  [
    "[MQTT-3.3.2-13]",
    "the Response Topic",
    (bytes) => publish("t", "x", { properties: [one(P.responseTopic, bytes)] }),
  ],
  ["[MQTT-3.3.2-19]", "the Content Type", (bytes) => publish("t", "x", { properties: [one(P.contentType, bytes)] })],
  ["[MQTT-1.5.7-1]", "a User Property of PUBLISH", (bytes) => packet(0x30, text("t"), listed(pair(bytes, good)))],
  [
    "[MQTT-3.8.3-1]",
    "a filter",
    (filter) =>
      subscribe(1, [
        ["a", 0],
        [filter, 0],
      ]),
  ],
  ["[MQTT-1.5.7-1]", "a User Property of SUBSCRIBE", withPair(0x82, Buffer.concat([text("t"), byte(0)]))],
  ["[MQTT-3.10.3-1]", "a filter of UNSUBSCRIBE", (filter) => unsubscribe(1, ["a", filter])],
  ["[MQTT-1.5.7-1]", "a User Property of UNSUBSCRIBE", withPair(0xa2, text("t"))],
  ["[3.4.2.2.2]", "the Reason String of PUBACK", (bytes) => ack("puback", 1, 0, [one(P.reason, bytes)])],
  ["[MQTT-1.5.7-1]", "a User Property of PUBREC", withPair(0x50, Buffer.alloc(0))],
  ["[3.6.2.2.2]", "the Reason String of PUBREL", (bytes) => ack("pubrel", 1, 0, [one(P.reason, bytes)])],
  ["[MQTT-1.5.7-1]", "a User Property of PUBCOMP", withPair(0x70, Buffer.alloc(0))],
  ["[3.14.2.2.3]", "the Reason String of DISCONNECT", (bytes) => disconnect(0, [one(P.reason, bytes)])],
];

describe("MQTT 5 strings that are no UTF-8", () => {
  for (const [clause, place, bytes] of inConnect) {
    it(
      `[MQTT-1.5.4-1, -2] ${clause} ${place}: a Malformed Packet`,
      withRig(async (rig) => {
        await witness(rig);
        for (const [name, sequence] of sequences) {
          const peer = open(rig);
          peer.send(bytes(sequence));
          await peer.gone();
          await refusal(peer, [0x81]).catch((error: Error) => {
            throw new Error(`${name}: ${error.message}`);
          });
        }
        expect(rig.broker.stats()).to.include({ sessions: 1, connections: 1 });
      }),
    );
  }
  for (const [clause, place, bytes] of later) {
    it(
      `[MQTT-1.5.4-1, -2] [MQTT-4.7.3-2] ${clause} ${place}: a Malformed Packet`,
      withRig(async (rig) => {
        for (const [, sequence] of sequences) await fault(rig, bytes(sequence), [0x81], kept);
      }),
    );
  }
});

describe("MQTT 5 strings that are UTF-8", () => {
  const texts = [
    "\ufeff",
    "\ufeffa\ufeff",
    "\u{10ffff}\u{1f600}",
    "\u00e9 e\u0301",
    " ",
    "\u007f\u0080",
    "\ud7ff\ue000",
  ];
  it(
    "[MQTT-1.5.4-3] [MQTT-4.7.3-4] [MQTT-1.5.7-1] they go through as they came, U+FEFF too, wherever they are",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      for (const string of texts) {
        const list: Property[] = [
          [P.contentType, string],
          [P.responseTopic, string],
          [P.user, [string, string]],
        ];
        const bytes = publish(`t/${string}`, string, { properties: list });
        peer.send(bytes);
        const [got] = await seen.publishes(1);
        expect(got?.topic).to.equal(`t/${string}`);
        expect(got?.payload).to.equal(new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.from(string)));
        expect(got?.properties).to.have.deep.members(list);
      }
    }),
  );
  it(
    "[MQTT-1.5.4-3] [MQTT-4.7.3-4] a filter with U+FEFF matches a topic with it, and no other; composed and decomposed differ",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe([
        ["\ufefft", 0],
        ["\u00e9", 0],
      ]);
      for (const topic of ["t", "\ufefft", "e\u0301", "\u00e9", "\u00c9"]) peer.publish(topic);
      expect((await peer.take()).map(({ topic }) => topic)).to.deep.equal(["\ufefft", "\u00e9"]);
    }),
  );
});

describe("MQTT 5 lengths", () => {
  const remaining: ReadonlyArray<readonly [string, string]> = [
    ["PINGREQ", "c0 80 00"],
    ["DISCONNECT", "e0 81 00 00"],
    ["PUBLISH", "30 85 80 00 00 01 74 00 78"],
  ];
  for (const [name, hex] of remaining) {
    it(
      `[MQTT-1.5.5-1] a Remaining Length with more bytes than it needs: ${name} is malformed`,
      withRig((rig) => fault(rig, Buffer.from(hex.replaceAll(" ", ""), "hex"), [0x81])),
    );
  }
  const long: ReadonlyArray<readonly [string, Buffer]> = [
    ["PUBLISH", packet(0x30, text("t"), Buffer.from([0x80, 0]), Buffer.from("x"))],
    ["SUBSCRIBE", packet(0x82, u16(1), Buffer.from([0x80, 0x80, 0]), text("t"), byte(0))],
    ["PUBACK", packet(0x40, u16(1), byte(0), Buffer.from([0x80, 0]))],
  ];
  for (const [name, bytes] of long) {
    it(
      `[MQTT-1.5.5-1] a Property Length with more bytes than it needs: ${name} is malformed`,
      withRig((rig) => fault(rig, bytes, [0x81])),
    );
  }
  it(
    "[MQTT-1.5.5-1] a Subscription Identifier with more bytes than it needs is malformed",
    withRig((rig) => fault(rig, packet(0x82, u16(1), Buffer.from([3, 0x0b, 0x81, 0]), text("t"), byte(0)), [0x81])),
  );
  it(
    "[1.5.5] a Remaining Length of five bytes is malformed: nobody waits for what it promises",
    withRig(async (rig) => {
      for (const hex of ["30ffffffff7f", "3080808080 01".replace(" ", ""), "30ffffffff"])
        await fault(rig, Buffer.from(hex, "hex"), [0x81]);
    }),
  );
  it(
    "[1.5.5] in a CONNECT as well",
    withRig((rig) => refused(rig, Buffer.from("10ffffffff7f", "hex"), [0x81])),
  );

  const trailing: ReadonlyArray<readonly [string, Buffer]> = [
    ["PINGREQ", packet(0xc0, byte(0))],
    ["SUBSCRIBE", packet(0x82, u16(1), byte(0), text("t"), byte(0), byte(1))],
    ["UNSUBSCRIBE", packet(0xa2, u16(1), byte(0), text("t"), byte(0))],
    ["DISCONNECT", packet(0xe0, byte(0), byte(0), byte(0))],
  ];
  for (const [name, bytes] of trailing) {
    it(
      `[2.1.4] [MQTT-4.13.1-1] bytes behind what ${name} has are malformed`,
      withRig((rig) => fault(rig, bytes, [0x81])),
    );
  }

  const values: ReadonlyArray<readonly [string, string]> = [
    ["a four byte value cut short", "02 00 00"],
    ["a string that ends behind the properties", "03 00 05 61 62"],
    ["a pair without its value", "26 00 01 61"],
    ["Binary Data that ends behind the properties", "09 00 ff 61"],
    ["an identifier and nothing else", "01"],
  ];
  for (const [name, hex] of values) {
    const list = Buffer.from(hex.replaceAll(" ", ""), "hex");
    it(
      `[2.2.2.2] [MQTT-4.13.1-1] ${name}: malformed`,
      withRig((rig) => fault(rig, packet(0x30, text("t"), listed(list), Buffer.from("payload")), [0x81])),
    );
  }

  it(
    "[MQTT-4.7.3-3] topics and filters of 65,535 bytes are handled, or refused with a reason code",
    withRig(async (rig) => {
      const topic = "t".repeat(65_535);
      const peer = await joined(rig);
      const [code] = await peer.subscribe(topic);
      expect([0, 0x80, 0x8f, 0x97]).to.include(code);
      peer.publish(topic, "x", { qos: 1, id: 1 });
      const said = (await peer.take()).map(({ kind }) => kind);
      expect(said).to.include("PUBACK");
      if (code === 0) expect(said).to.include("PUBLISH");
    }),
  );

  it(
    "[2.1.4] packets cut anywhere and put together anyhow are the same packets",
    withRig(async (rig) => {
      const peer = open(rig);
      const all = Buffer.concat([connect(), subscribe(5, [["t", 1]]), publish("t", "x", { qos: 1, id: 6 }), pingreq]);
      for (const single of all) {
        peer.send(Buffer.from([single]));
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      const said = await peer.says();
      expect(said[0]).to.equal("CONNACK 00");
      expect(said.slice(1)).to.have.members(["SUBACK 5 01", "PUBACK 6 00", "PUBLISH q1 t=x", "PINGRESP"]);
    }),
  );

  it(
    "[2.1.4] lengths at each number of bytes of the Variable Byte Integer go through",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      for (const size of [127, 128, 16_383, 16_384, 1024 * 1024 - 4]) {
        const overhead = 4; // topic and Property Length
        const bytes = publish("t", Buffer.alloc(size - overhead, 0x61));
        peer.send(bytes);
        const [got] = await seen.publishes(1);
        expect(got?.bytes.equals(bytes), `${size}`).to.equal(true);
      }
    }),
  );

  it(
    "[2.1.3] [MQTT-4.13.1-1] packet type 0 is refused",
    withRig(async (rig) => {
      for (const hex of ["0000", "0f00", "000100"]) await fault(rig, Buffer.from(hex, "hex"), [0x81, 0x82]);
    }),
  );
  it(
    "[MQTT-2.1.3-1] PINGREQ with header flags is malformed",
    withRig(async (rig) => {
      for (let flags = 1; flags < 16; flags += 1) await fault(rig, Buffer.from([0xc0 | flags, 0]), [0x81]);
    }),
  );
  it(
    "[2.2.2.1] properties of more than 127 bytes, in every packet that has them",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", { properties: [[P.user, ["a", "v".repeat(200)]]] });
      const list: readonly Property[] = [[P.user, ["a", "v".repeat(20_000)]]];
      peer.send(
        subscribe(1, [["t", 0]], list),
        packet(0xa2, u16(2), properties(list), text("t")),
        ack("pubrel", 3, 0, list),
      );
      expect((await peer.take()).map(({ kind }) => kind)).to.deep.equal(["SUBACK", "UNSUBACK", "PUBCOMP"]);
    }),
  );
});
