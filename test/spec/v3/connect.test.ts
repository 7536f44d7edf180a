import { expect } from "chai";
import { testUser } from "../../helpers/testUsers.ts";
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
  published,
  pubrec,
  pubrel,
  refusedSilently,
  suback,
  subscribe,
  subscribed,
  unsubscribe,
  violation,
} from "./support.ts";

/** A CONNECT from its variable header on. */
const body = (flags: string, payload: Uint8Array): Buffer =>
  packet(0x10, hex("00044d515454 04"), hex(flags), hex("0000"), payload);

chapter("the first packet", (world) => {
  const others: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["CONNACK", connack(0)],
    ["PUBLISH", publish("t", "p")],
    ["PUBLISH of QoS 1", publish("t", "p", { qos: 1 })],
    ["PUBACK", puback(1)],
    ["PUBREC", pubrec(1)],
    ["PUBREL", pubrel(1)],
    ["PUBCOMP", pubcomp(1)],
    ["SUBSCRIBE", subscribe(1, ["#", 0])],
    ["SUBACK", suback(1, 0)],
    ["UNSUBSCRIBE", unsubscribe(1, "#")],
    ["UNSUBACK", hex("b0020001")],
    ["PINGREQ", pingreq],
    ["PINGRESP", pingresp],
    ["DISCONNECT", disconnect],
    ["the reserved type 0", hex("0000")],
    ["the reserved type 15", hex("f000")],
  ];
  for (const [name, bytes] of others) {
    it(`[MQTT-3.1.0-1] must be CONNECT: ${name} ends the connection without an answer`, () =>
      refusedSilently(world(), bytes));
  }

  it("[MQTT-3.1.0-2] a second CONNECT ends the connection", () => violation(world(), connect("faulty")));

  it("[MQTT-3.1.0-2] a second CONNECT of another client id ends the connection, and makes no session", async () => {
    await violation(world(), connect("other", durable));
    await (await world().join("other", durable, false)).drop();
  });

  it("[MQTT-3.1.0-2] a second CONNECT in the same write: one CONNACK, then the end", async () => {
    const wire = world().open();
    wire.send(connect("a"), connect("a"));
    await wire.ends(connack(0));
  });

  it("[MQTT-3.1.0-1] [MQTT-3.1.4-4] packets that follow CONNECT without waiting for CONNACK are served", async () => {
    const wire = world().open();
    wire.send(connect("a"), subscribe(7, ["t", 1]), publish("t", "p", { qos: 1, id: 3 }), pingreq);
    const frames = (await wire.take()).map((frame) => frame.toString("hex"));
    expect(frames[0]).to.equal("20020000");
    expect(frames).to.have.members(["20020000", "9003000701", "40020003", "3206000174000170", "d000"]);
  });

  it("[MQTT-3.1.4-1] a CONNECT in single bytes is one CONNECT", async () => {
    const wire = world().open();
    for (const byte of connect("a")) wire.send(Buffer.from([byte]));
    await wire.gets(connack(0));
  });
});

chapter("CONNECT, its variable header", (world) => {
  for (const name of ["hj", "mqtt", "MQT", "MQTTX", "", "MQIsdp\u0000", "MQTT "]) {
    it(`[MQTT-3.1.2-1] is not processed with the protocol name ${JSON.stringify(name)}`, async () => {
      const watcher = await world().subscriber("watcher", ["#", 2]);
      const wire = world().open();
      wire.send(connect("a", { name, will: { topic: "w" } }), publish("t", "p"));
      await wire.ends();
      await watcher.lives();
    });
  }

  it("[MQTT-3.1.2-1] the name MQIsdp is not served with the level 4", async () => {
    const wire = world().open();
    wire.send(connect("a", { name: "MQIsdp" }));
    const frames = await wire.take();
    expect(frames.map((frame) => frame.toString("hex")).join()).to.be.oneOf(["", "20020001"]);
    await wire.ends();
  });

  for (const level of [0, 1, 2, 3, 6, 7, 127]) {
    it(`[MQTT-3.1.2-2] [MQTT-3.2.2-4] [MQTT-3.2.2-5] the level ${level} gets return code 1, and the end`, async () => {
      const watcher = await world().subscriber("watcher", ["#", 2]);
      const wire = world().open();
      wire.send(connect("a", { level, will: { topic: "w" } }));
      await wire.ends(connack(1));
      await watcher.lives();
    });
  }

  it("[MQTT-3.1.2-3] [MQTT-3.1.4-1] the reserved connect flag must be 0", () =>
    refusedSilently(world(), connect("a", { flags: 0x03 })));

  const flagFaults: ReadonlyArray<readonly [clauses: string, flags: string, payload: Uint8Array]> = [
    ["[MQTT-3.1.2-9] Will Flag 1, no Will fields", "06", field("a")],
    ["[MQTT-3.1.2-9] Will Flag 1, a Will topic without message", "06", Buffer.concat([field("a"), field("w")])],
    ["[MQTT-3.1.2-11] [MQTT-3.1.2-13] Will Flag 0, Will QoS 1", "0a", field("a")],
    ["[MQTT-3.1.2-11] [MQTT-3.1.2-13] Will Flag 0, Will QoS 2", "12", field("a")],
    ["[MQTT-3.1.2-11] [MQTT-3.1.2-14] Will Flag 0, Will QoS 3", "1a", field("a")],
    ["[MQTT-3.1.2-11] [MQTT-3.1.2-15] Will Flag 0, Will Retain 1", "22", field("a")],
    ["[MQTT-3.1.2-11] Will Flag 0, Will fields", "02", Buffer.concat([field("a"), field("w"), field("m")])],
    ["[MQTT-3.1.2-14] Will QoS 3", "1e", Buffer.concat([field("a"), field("w"), field("m")])],
    ["[MQTT-3.1.2-18] User Name Flag 0, a user name", "02", Buffer.concat([field("a"), field("u")])],
    ["[MQTT-3.1.2-19] User Name Flag 1, no user name", "82", field("a")],
    ["[MQTT-3.1.2-20] Password Flag 0, a password", "82", Buffer.concat([field("a"), field("u"), field("p")])],
    ["[MQTT-3.1.2-21] Password Flag 1, no password", "c2", Buffer.concat([field("a"), field("u")])],
    ["[MQTT-3.1.2-22] Password Flag 1, User Name Flag 0", "42", Buffer.concat([field("a"), field("p")])],
  ];
  for (const [title, flags, payload] of flagFaults) {
    it(`[MQTT-3.1.4-1] ${title}: ends without CONNACK`, () => refusedSilently(world(), body(flags, payload)));
  }
});

// The clauses of the table above, one title each, for who counts them in the text: these are the same fields when they are right.
chapter("CONNECT, fields that its flags announce", (world) => {
  it("[MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15] Will QoS and Retain of all sorts", async () => {
    for (const qos of [0, 1, 2] as const) {
      for (const retain of [false, true]) {
        await world().join(`a${qos}${retain}`, { will: { topic: "w", payload: "m", qos, retain } });
      }
    }
    await world().join("none");
  });

  it("[MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.2-22] user name alone, with password, neither", async () => {
    await world().join("a", { username: "u" });
    await world().join("b", { username: "u", password: "p" });
    await world().join("c", { username: "", password: "" });
    await world().join("d");
  });
});

chapter("CONNECT that is cut short or too long", (world) => {
  const whole = connect("client", { will: { topic: "w", payload: "m" }, username: "u", password: "p" }).subarray(2);
  it("[MQTT-3.1.4-1] [MQTT-3.2.2-6] is never answered, at whatever byte it ends", async () => {
    for (let length = 0; length < whole.length; length += 1) {
      const wire = world().open();
      wire.send(packet(0x10, whole.subarray(0, length)));
      await wire.ends();
    }
    expect(world().rig.broker.stats()).to.include({ connections: 0, sessions: 0 });
  });

  it("[MQTT-3.1.4-1] bytes after the last field end the connection", () =>
    refusedSilently(world(), packet(0x10, whole, hex("00"))));
  it("[MQTT-3.1.3-3] [MQTT-3.1.4-1] without a payload it ends the connection", () =>
    refusedSilently(world(), packet(0x10, hex("00044d515454 04 02 0000"))));
});

chapter("a CONNECT that is refused", (world) => {
  const refused: ReadonlyArray<readonly [string, Uint8Array, Uint8Array[]]> = [
    ["the level", connect("a", { level: 9 }), [connack(1)]],
    ["the client id", connect("", durable), [connack(2)]],
    ["its form", connect("a", { flags: 0x03 }), []],
  ];
  for (const [why, bytes, answer] of refused) {
    it(`[MQTT-3.1.4-5] for ${why}: what the client sent after it is not processed`, async () => {
      const watcher = await world().subscriber("watcher", ["#", 2]);
      const wire = world().open();
      const more = [
        subscribe(1, ["#", 0]),
        publish("t", "p", { retain: true }),
        publish("t", "q", { qos: 1 }),
        pingreq,
      ];
      wire.send(bytes, ...more);
      wire.send(...more);
      await wire.ends(...answer);
      await watcher.lives();
      const later = await world().subscriber("later", ["#", 2]);
      await later.quiet();
    });
  }
});

chapter("CONNACK", (world) => {
  it("[MQTT-3.1.4-4] [MQTT-3.2.2-1] Clean Session 1 is accepted with Session Present 0", async () => {
    await world().join("a", {}, false);
    await (await world().join("a", durable, false)).drop();
    await world().join("a", {}, false); // although there is a session stored
  });

  it("[MQTT-3.2.2-2] [MQTT-3.2.2-3] Clean Session 0 is told whether a session is stored", async () => {
    await (await world().join("a", durable, false)).drop();
    await (await world().join("a", durable, true)).leave();
    await world().join("b", durable, false);
    await world().join("a", durable, true);
  });

  it("[MQTT-3.2.2-3] after a Clean Session 1 in between none is stored", async () => {
    await (await world().join("a", durable, false)).leave();
    await (await world().join("a", {}, false)).leave();
    await world().join("a", durable, false);
  });

  it("[MQTT-3.2.2-2] Session Present tells of a session over a restart of the server", async () => {
    await (await world().join("a", durable)).leave();
    await world().restart();
    await world().join("a", durable, true);
  });

  it("[MQTT-3.2.2-4] [MQTT-3.2.2-5] a refusal has Session Present 0 although a session is stored", async () => {
    await (await world().join("a", durable)).drop();
    const wire = world().open();
    wire.send(connect("a", { ...durable, level: 6 }));
    await wire.ends(connack(1, false));
  });

  it("[MQTT-3.2.0-1] is the first packet where messages wait for the session", async () => {
    await world().asleep("a", ["t/#", 1]);
    const publisher = await world().join("p");
    await published(publisher, "t/1", "one");
    const wire = world().open();
    wire.send(connect("a", durable), subscribe(5, ["t/1", 1]));
    await wire.gets(connack(0, true));
  });
});

chapter(
  "CONNACK where a user name and its password are needed",
  (world) => {
    const refusals: ReadonlyArray<readonly [string, Parameters<typeof connect>[1]]> = [
      ["a wrong password", { username: "u", password: "q" }],
      ["a wrong user name", { username: "v", password: "p" }],
      ["no password", { username: "u" }],
      ["neither", {}],
    ];
    for (const [why, options] of refusals) {
      it(`[MQTT-3.2.2-4] [MQTT-3.2.2-5] [MQTT-3.1.4-5] ${why}: return code 4 or 5, the end, and nothing else`, async () => {
        const watcher = await world().join("watcher", { username: "u", password: "p" });
        await subscribed(watcher, ["#", 2]);
        const wire = world().open();
        wire.send(connect("a", { ...options, will: { topic: "w" } }), publish("t", "p"));
        const frames = (await wire.take()).map((frame) => frame.toString("hex"));
        expect(frames).to.be.an("array").with.lengthOf(1);
        expect(frames[0]).to.be.oneOf(["20020004", "20020005"]);
        await wire.ends();
        await watcher.lives();
      });
    }

    it("[MQTT-3.1.3-1] [MQTT-3.1.4-4] the right ones are accepted, after Will topic and message", async () => {
      const wire = await world().join("a", { username: "u", password: "p", will: { topic: "w", payload: "m" } });
      await wire.lives();
    });
  },
  {
    anonymous: false,
    users: [testUser("u", "p")],
    verify: (_kept, password, settled) => settled(Buffer.from(password).toString() === "p"), // at once
  },
);
