import { expect } from "chai";
import {
  chapter,
  connack,
  connect,
  disconnect,
  durable,
  field,
  hex,
  packet,
  pingreq,
  pingresp,
  puback,
  pubcomp,
  publish,
  pubrec,
  pubrel,
  refusedSilently,
  remainingLength,
  suback,
  subscribe,
  subscribed,
  unsuback,
  unsubscribe,
  violation,
} from "./support.ts";

/** Bytes that are no UTF-8 of any code point that may be sent. */
const illFormed: ReadonlyArray<readonly [string, string]> = [
  ["a surrogate, U+D800", "eda080"],
  ["a surrogate, U+DFFF", "edbfbf"],
  ["a pair of surrogates (CESU-8)", "eda0bdedb880"],
  ["a continuation byte alone", "6180"],
  ["an overlong U+0000", "c080"],
  ["an overlong slash", "c0af"],
  ["an overlong of three bytes", "e08080"],
  ["an overlong of four bytes", "f0808080"],
  ["a code point above U+10FFFF", "f4908080"],
  ["five bytes", "f888808080"],
  ["a first byte without the second", "61c3"],
  ["a first byte of three with one", "61e2 82"],
  ["a byte that is never used", "fe61"],
];

const fields: ReadonlyArray<readonly [string, (value: Uint8Array) => Uint8Array]> = [
  ["the topic of a PUBLISH", (value) => publish(value, "p")],
  ["the topic of a PUBLISH of QoS 1", (value) => publish(value, "p", { qos: 1 })],
  ["the topic of a retained PUBLISH of QoS 2", (value) => publish(value, "p", { qos: 2, retain: true })],
  ["a filter of SUBSCRIBE", (value) => subscribe(1, ["good", 0], [value, 0])],
  ["a filter of UNSUBSCRIBE", (value) => unsubscribe(1, "good", value)],
];
const connectFields: ReadonlyArray<readonly [string, (value: Uint8Array) => Uint8Array]> = [
  ["the client id", (value) => connect(value)],
  ["the Will topic", (value) => connect("a", { will: { topic: value } })],
  ["the user name", (value) => connect("a", { username: value })],
];

chapter("strings that are not UTF-8", (world) => {
  for (const [where, make] of fields) {
    for (const [what, bytes] of illFormed) {
      it(`[MQTT-1.5.3-1] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] ${what} in ${where} ends the connection`, () =>
        violation(world(), make(hex(bytes))));
    }
    it(`[MQTT-1.5.3-2] [MQTT-4.7.3-2] U+0000 in ${where} ends the connection`, () =>
      violation(world(), make(hex("610062"))));
  }
  for (const [where, make] of connectFields) {
    for (const [what, bytes] of illFormed) {
      it(`[MQTT-1.5.3-1] ${what} in ${where} of CONNECT: no CONNACK, and the end`, () =>
        refusedSilently(world(), make(hex(bytes))));
    }
    it(`[MQTT-1.5.3-2] U+0000 in ${where} of CONNECT: no CONNACK, and the end`, () =>
      refusedSilently(world(), make(hex("610062"))));
  }
});

chapter("strings that are UTF-8", (world) => {
  const topics = [
    "\ufeff",
    "\ufefft",
    "t\ufeff",
    "a/\ufeff/b",
    "\u{10ffff}a",
    "\u{1f600}",
    "\ud7ff",
    "\ue000",
    "e\u0301",
    "\u00a0 ",
  ];
  for (const topic of topics) {
    const name = Buffer.from(topic).toString("hex");
    it(`[MQTT-1.5.3-3] [MQTT-4.7.3-4] come as they were sent: ${name}`, async () => {
      const all = await world().subscriber("all", ["#", 0]);
      const exact = await world().subscriber("exact", [topic, 0]);
      (await world().join("p")).send(publish(topic, topic));
      for (const wire of [all, exact]) await wire.gets(publish(topic, topic));
    });
  }

  it("[MQTT-1.5.3-3] U+FEFF is not stripped from a filter or a topic", async () => {
    const marked = await world().subscriber("marked", ["\ufefft", 0]);
    const plain = await world().subscriber("plain", ["t", 0]);
    const publisher = await world().join("p");
    publisher.send(publish("t", "plain"), publish("\ufefft", "marked"));
    await marked.gets(publish("\ufefft", "marked"));
    await plain.gets(publish("t", "plain"));
    await marked.lives();
    await plain.lives();
  });

  it("[MQTT-1.5.3-3] U+FEFF is not stripped from a client id", async () => {
    await (await world().join("a", durable)).drop();
    await (await world().join("\ufeffa", durable, false)).drop();
    await world().join("\ufeffa", durable, true);
  });

  it("[MQTT-1.5.3-3] nor from what is unsubscribed", async () => {
    const wire = await world().subscriber("a", ["t", 0], ["\ufefft", 0]);
    wire.send(unsubscribe(2, "t"));
    await wire.gets(unsuback(2));
    (await world().join("p")).send(publish("t", "1"), publish("\ufefft", "2"));
    await wire.gets(publish("\ufefft", "2"));
  });

  for (const topic of ["\u0001", "a\u001fb", "\u007f", "\u009f", "\uffff", "\ufdd0", "\u{1fffe}"]) {
    const name = Buffer.from(topic).toString("hex");
    it(`[1.5.3] ${name}, which should not be sent, is delivered as it is or ends the connection`, async () => {
      const watcher = await world().subscriber("watcher", ["#", 0]);
      const wire = await world().join("a");
      wire.send(publish(topic, "p"), pingreq);
      const answered = (await wire.take()).map((frame) => frame.toString("hex"));
      if (wire.closed) return watcher.lives();
      expect(answered).to.deep.equal([pingresp.toString("hex")]);
      await watcher.gets(publish(topic, "p"));
    });
  }

  it("[1.5.3] a payload is not looked at", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    const wire = await world().join("a");
    wire.send(publish("t", hex("00c080ff")));
    await watcher.gets(publish("t", hex("00c080ff")));
  });
});

chapter("flags of the fixed header", (world) => {
  const types: ReadonlyArray<readonly [string, number, Uint8Array]> = [
    ["PUBACK", 0, puback(1)],
    ["PUBREC", 0, pubrec(1)],
    ["[MQTT-3.6.1-1] PUBREL", 2, pubrel(1)],
    ["PUBCOMP", 0, pubcomp(1)],
    ["[MQTT-3.8.1-1] SUBSCRIBE", 2, subscribe(1, ["t", 0])],
    ["[MQTT-3.10.1-1] UNSUBSCRIBE", 2, unsubscribe(1, "t")],
    ["PINGREQ", 0, pingreq],
    ["[MQTT-3.14.1-1] DISCONNECT", 0, disconnect],
  ];
  const changed = (bytes: Uint8Array, flags: number): Buffer =>
    Buffer.concat([Buffer.from([((bytes[0] ?? 0) & 0xf0) | flags]), bytes.subarray(1)]);
  for (const [name, right, bytes] of types) {
    for (let flags = 0; flags < 16; flags += 1) {
      if (flags === right) continue;
      it(`[MQTT-2.2.2-1] [MQTT-2.2.2-2] ${name} with ${flags.toString(2).padStart(4, "0")} ends the connection`, () =>
        violation(world(), changed(bytes, flags)));
    }
  }
  for (let flags = 1; flags < 16; flags += 1) {
    it(`[MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.1.4-1] CONNECT with ${flags.toString(2).padStart(4, "0")}: no CONNACK, and the end`, () =>
      refusedSilently(world(), changed(connect("a"), flags)));
  }
});

chapter("control packets that a client does not send", (world) => {
  const theirs: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["CONNACK", connack(0)],
    ["SUBACK", suback(1, 0)],
    ["UNSUBACK", unsuback(1)],
    ["PINGRESP", pingresp],
    ["the reserved type 0", hex("0000")],
    ["the reserved type 0 with a body", hex("00020001")],
    ["the reserved type 15", hex("f000")],
  ];
  for (const [name, bytes] of theirs) {
    it(`[MQTT-4.8.0-1] ${name} ends the connection`, () => violation(world(), bytes));
  }
});

chapter("Remaining Length", (world) => {
  for (const length of [0, 1, 123, 124, 125, 126, 127, 128, 16_379, 16_380, 16_381, 16_384, 300_000]) {
    it(`[2.2.3] a PUBLISH with a payload of ${length} bytes is delivered whole`, async () => {
      const watcher = await world().subscriber("watcher", ["#", 0]);
      const wire = await world().join("a");
      const payload = Buffer.alloc(length, "x");
      wire.send(publish("t", payload));
      await watcher.gets(publish("t", payload));
    });
  }

  it("[2.2.3] of more than four bytes ends the connection", () => violation(world(), hex("30 80808080 01")));
  it("[2.2.3] of five bytes of value ends the connection", () => violation(world(), hex("30 ffffffff 7f")));
  it("[2.2.3] of more than four bytes in the first packet ends the connection", () =>
    refusedSilently(world(), hex("10 80808080 01")));

  it("[MQTT-4.8.0-1] of more than the server takes ends the connection before the packet is there", () =>
    violation(world(), Buffer.concat([hex("30"), remainingLength(200_000_000), field("t")])));

  it("[2.2.3] packets in any pieces are the same packets", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    const wire = await world().join("a");
    const stream = Buffer.concat([
      publish("t", "x".repeat(200)),
      subscribe(4, ["q", 0]),
      publish("t", "y", { qos: 1 }),
    ]);
    for (const piece of [1, 2, 3, 7, 201]) {
      for (let at = 0; at < stream.length; at += piece) {
        wire.send(stream.subarray(at, at + piece));
        await wire.take();
      }
      expect((await watcher.deliveries()).map(({ payload }) => payload.length)).to.deep.equal([200, 1]);
    }
  });

  const bodies: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["PINGREQ with a body", hex("c00100")],
    ["DISCONNECT with a body", hex("e00100")],
    ["PUBACK without a packet id", hex("4000")],
    ["PUBACK with half a packet id", hex("400100")],
    ["PUBACK with a byte too many", hex("4003000100")],
    ["PUBREC with half a packet id", hex("500100")],
    ["PUBREC with a byte too many", hex("5003000100")],
    ["PUBREL without a packet id", hex("6200")],
    ["PUBREL with a byte too many", hex("6203000100")],
    ["PUBCOMP with half a packet id", hex("700100")],
    ["PUBCOMP with a byte too many", hex("7003000100")],
    ["SUBSCRIBE without a packet id", hex("8200")],
    ["SUBSCRIBE whose filter is longer than the packet", hex("8206 0001 0004 6100")],
    ["SUBSCRIBE whose last filter has no QoS", packet(0x82, hex("0001"), field("a"), hex("00"), field("b"))],
    ["UNSUBSCRIBE without a packet id", hex("a200")],
    ["UNSUBSCRIBE whose filter is longer than the packet", hex("a205 0001 0004 61")],
    ["UNSUBSCRIBE with half a length", hex("a203 0001 00")],
    ["PUBLISH without a topic", hex("3000")],
    ["PUBLISH with half a topic length", hex("300100")],
    ["PUBLISH whose topic is longer than the packet", hex("3003 0005 61")],
    ["PUBLISH of QoS 1 without a packet id", hex("3203 0001 61")],
    ["PUBLISH of QoS 2 with half a packet id", hex("3404 0001 61 00")],
  ];
  for (const [name, bytes] of bodies) {
    it(`[MQTT-4.8.0-1] ${name} ends the connection`, () => violation(world(), bytes));
  }
});

chapter("the packet id", (world) => {
  const zero: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["PUBLISH of QoS 1", publish("t", "p", { qos: 1, id: 0 })],
    ["PUBLISH of QoS 2", publish("t", "p", { qos: 2, id: 0 })],
    ["SUBSCRIBE", subscribe(0, ["t", 0])],
    ["UNSUBSCRIBE", unsubscribe(0, "t")],
  ];
  for (const [name, bytes] of zero) {
    it(`[MQTT-2.3.1-1] 0 in ${name} ends the connection`, () => violation(world(), bytes));
  }

  for (const id of [1, 255, 256, 32_768, 65_535]) {
    it(`[MQTT-2.3.1-6] [MQTT-2.3.1-7] [MQTT-2.3.1-2] ${id} comes back in each acknowledgement`, async () => {
      const wire = await world().join("a");
      wire.send(publish("t", "p", { qos: 1, id }));
      await wire.gets(puback(id));
      wire.send(publish("t", "p", { qos: 2, id }));
      await wire.gets(pubrec(id));
      wire.send(pubrel(id));
      await wire.gets(pubcomp(id));
      wire.send(subscribe(id, ["u", 0]));
      await wire.gets(suback(id, 0));
      wire.send(unsubscribe(id, "u"));
      await wire.gets(unsuback(id));
    });
  }

  it("[MQTT-2.3.1-5] a PUBLISH of QoS 0 that the server sends has none", async () => {
    const wire = await world().subscriber("a", ["t", 0]);
    (await world().join("p")).send(publish("t", "", { qos: 1 }), publish("t", "", { qos: 2, id: 2 }), publish("t", ""));
    for (let count = 0; count < 2; count += 1) await wire.gets(hex("3003 0001 74"));
  });

  it("[MQTT-2.3.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] the server's are unused ones while a message is in flight", async () => {
    const wire = await world().join("a");
    await subscribed(wire, ["t", 2]);
    const publisher = await world().join("p");
    for (let id = 1; id <= 60; id += 1) publisher.send(publish("t", `${id}`, { qos: id % 2 === 0 ? 1 : 2, id }));
    for (let id = 1; id <= 60; id += 1) publisher.send(pubrel(id % 2 === 0 ? 1 : id));
    const ids = (await wire.deliveries()).map(({ id }) => id);
    expect(new Set(ids).size).to.equal(60);
    expect(ids).not.to.include(0);
  });

  it("[MQTT-2.3.1-2] [MQTT-2.3.1-3] the two sides use the same id at the same time", async () => {
    const wire = await world().join("a");
    await subscribed(wire, ["t", 1]);
    const publisher = await world().join("p");
    publisher.send(publish("t", "theirs", { qos: 1 }));
    const id = await wire.receives("t", "theirs", { qos: 1 });
    wire.send(publish("u", "mine", { qos: 1, id }));
    await wire.gets(puback(id));
    wire.send(publish("u", "mine", { qos: 2, id }), puback(id), pubrel(id), subscribe(id, ["v", 1]));
    await wire.gets(pubrec(id), pubcomp(id), suback(id, 1));
  });
});
