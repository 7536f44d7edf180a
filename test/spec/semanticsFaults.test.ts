/** What is refused, with which code and in which packet (MQTT 5 sections 4.13, 3.2.2.2 and 3.14). */
import { expect } from "chai";
import {
  connectPacket,
  durable,
  Rig,
  type TestClient,
  text,
  turns,
  type Version,
  versions,
} from "../helpers/brokerRig.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

/** A CONNECT whose parts behind the protocol level are given. */
function connectBytes(level: number, rest: string): Buffer {
  const body = Buffer.concat([hex("00044d515454"), Buffer.from([level]), hex(rest)]);
  return Buffer.concat([Buffer.from([0x10, body.length]), body]);
}

const badConnects: ReadonlyArray<readonly [string, string, string, number]> = [
  ["the reserved flag [MQTT-3.1.2-3]", "03 0000 0001 61", "03 0000 00 0001 61", 0x81],
  ["Will QoS without a will [MQTT-3.1.2-11]", "0a 0000 0001 61", "0a 0000 00 0001 61", 0x81],
  ["Will Retain without a will [MQTT-3.1.2-13]", "22 0000 0001 61", "22 0000 00 0001 61", 0x81],
  ["Will QoS 3 [MQTT-3.1.2-12]", "1e 0000 0001 61 0001 74 0000", "1e 0000 00 0001 61 00 0001 74 0000", 0x81],
  ["bytes left over", "02 0000 0001 61 00", "02 0000 00 0001 61 00", 0x81],
  ["a client id that is no UTF-8 [MQTT-3.1.3-4]", "02 0000 0001 ff", "02 0000 00 0001 ff", 0x81],
  ["a client id with U+0000 [MQTT-1.5.4-2]", "02 0000 0001 00", "02 0000 00 0001 00", 0x81],
  ["a user name that is missing [MQTT-3.1.2-17]", "82 0000 0001 61", "82 0000 00 0001 61", 0x81],
];

for (const version of versions) {
  describe(`faults, MQTT ${version}`, () => {
    let rig: Rig;
    beforeEach(() => {
      rig = new Rig();
    });
    afterEach(() => rig.close());

    for (const [what, four, five, code] of badConnects) {
      it(`CONNECT with ${what} [MQTT-3.1.4-1]`, async () => {
        const client = rig.open(version);
        client.raw(connectBytes(version, version === 4 ? four : five));
        if (version === 5) expect((await client.connack()).code).to.equal(code);
        await client.gone();
        expect(client.received).to.deep.equal([]); // no DISCONNECT before a CONNACK [MQTT-3.14.0-1]; 3.1.1: nothing [MQTT-3.2.2-6]
      });
    }

    it("another protocol name: closed without an answer [MQTT-3.1.2-1]", async () => {
      const client = rig.open(version);
      client.raw(Buffer.concat([hex("100d 0004 4d515454"), Buffer.from([version])]).fill("X", 4, 8));
      client.raw(hex("02 0000 0001 61"));
      await client.gone();
      expect(client.received).to.deep.equal([]);
    });

    it("a first packet that is not CONNECT is refused by its first byte", async () => {
      for (const first of ["47", "c0", "20", "f0", "11", "00"]) {
        const client = rig.open(version);
        client.raw(hex(first));
        await client.gone();
      }
    });

    const inSession: ReadonlyArray<readonly [string, string, number]> = [
      ["PUBREL without its flags [MQTT-3.6.1-1]", "60 02 0001", 0x81],
      [
        "SUBSCRIBE without its flags [MQTT-3.8.1-1]",
        version === 4 ? "80 06 0001 0001 74 00" : "80 07 0001 00 0001 74 00",
        0x81,
      ],
      [
        "UNSUBSCRIBE without its flags [MQTT-3.10.1-1]",
        version === 4 ? "a0 05 0001 0001 74" : "a0 06 0001 00 0001 74",
        0x81,
      ],
      ["PUBACK with a flag [MQTT-2.1.3-1]", "41 02 0001", 0x81],
      ["PUBREC with a flag", "52 02 0001", 0x81],
      ["PUBCOMP with a flag", "78 02 0001", 0x81],
      ["PINGREQ with a flag", "c1 00", 0x81],
      ["PINGREQ with a body", "c0 01 00", 0x81],
      ["DISCONNECT with a flag [MQTT-3.14.1-1]", "e1 00", 0x81],
      ["PUBACK that is too short", "40 01 00", 0x81],
      ["PUBACK of packet id 0", "40 02 0000", 0x82],
      ["PUBREL with bytes left over", version === 4 ? "62 03 0001 00" : "62 05 0001 00 00 00", 0x81],
      ["packet type 0", "00 00", 0x81],
      ["CONNACK from a client", "20 02 0000", 0x82],
      ["PINGRESP from a client", "d0 00", 0x82],
      ["a remaining length of five bytes", "30 80808080 01", 0x81],
      ["SUBSCRIBE without a filter", version === 4 ? "82 02 0001" : "82 03 0001 00", 0x82],
      ["UNSUBSCRIBE without a filter", version === 4 ? "a2 02 0001" : "a2 03 0001 00", 0x82],
      ["SUBSCRIBE of QoS 3", version === 4 ? "82 06 0001 0001 74 03" : "82 07 0001 00 0001 74 03", 0x82],
      ["SUBSCRIBE with packet id 0", version === 4 ? "82 06 0000 0001 74 00" : "82 07 0000 00 0001 74 00", 0x82],
      [
        "SUBSCRIBE with reserved options [MQTT-3.8.3-5]",
        version === 4 ? "82 06 0001 0001 74 04" : "82 07 0001 00 0001 74 40",
        0x81,
      ],
      ["PUBLISH QoS 0 with DUP [MQTT-3.3.1-2]", version === 4 ? "38 03 0001 74" : "38 04 0001 74 00", 0x81],
      ["PUBLISH QoS 3 [MQTT-3.3.1-4]", version === 4 ? "36 05 0001 74 0001" : "36 06 0001 74 0001 00", 0x81],
      ["PUBLISH of QoS 1 with packet id 0", version === 4 ? "32 05 0001 74 0000" : "32 06 0001 74 0000 00", 0x82],
      ["PUBLISH to a wildcard [MQTT-3.3.2-2]", version === 4 ? "30 03 0001 2b" : "30 04 0001 2b 00", 0x90],
      ["PUBLISH to no topic [MQTT-4.7.3-1]", version === 4 ? "30 02 0000" : "30 03 0000 00", 0x82],
      [
        "PUBLISH to an overlong encoding [MQTT-1.5.4-1]",
        version === 4 ? "30 04 0002 c1bf" : "30 05 0002 c1bf 00",
        0x81,
      ],
      ["PUBLISH to a surrogate", version === 4 ? "30 05 0003 eda080" : "30 06 0003 eda080 00", 0x81],
    ];
    for (const [what, bytes, code] of inSession) {
      it(`${what}: the connection ends [MQTT-4.8.0-1], [MQTT-4.13.1-1]`, async () => {
        const client = await rig.client(version, "a");
        client.raw(hex(bytes));
        await client.gone();
        expect(
          client.received.map((packet) => (packet.cmd === "disconnect" ? packet.reasonCode : packet.cmd)),
        ).to.deep.equal(version === 5 ? [code] : []);
      });
    }

    it("a byte order mark is a character like another [MQTT-1.5.4-3]", async () => {
      const client = await rig.client(version, "a");
      await client.subscribe("\ufeffa");
      client.publish("a", "without");
      client.publish("\ufeffa", "with");
      const got = await client.take();
      expect(got.map((packet) => (packet.cmd === "publish" ? text(packet) : packet.cmd))).to.deep.equal(["with"]);
    });

    it("Keep Alive counts whole packets: a byte now and then does not keep a connection open", async () => {
      const slow = await rig.client(version, "a", { keepalive: 10 });
      const bytes = Buffer.alloc(5, 0);
      bytes.set(version === 4 ? [0x30, 100, 0, 1, 0x74] : [0x30, 100, 0, 1, 0x74]);
      for (const byte of bytes) {
        slow.raw(Buffer.from([byte]));
        await turns();
        rig.advance(3500);
      }
      await slow.gone();
      if (version === 5) expect((await slow.next("disconnect")).reasonCode).to.equal(0x8d);
    });

    it("Keep Alive: a large packet that takes its time is a sign of life, and 0 means none", async () => {
      const client = await rig.client(version, "a", { keepalive: 10 });
      const idle = await rig.client(version, "b", { keepalive: 0 });
      client.raw(Buffer.concat([hex("30 e0d403"), hex("0001 74"), Buffer.alloc(version === 4 ? 0 : 1)]));
      for (let part = 0; part < 5; part += 1) {
        client.raw(Buffer.alloc(2000, 0x61));
        await turns();
        rig.advance(9000);
      }
      expect([client.closed, idle.closed]).to.deep.equal([false, false]);
    });

    it("Keep Alive of one second ends between one and a half and two", async () => {
      const client = await rig.client(version, "a", { keepalive: 1 });
      rig.advance(1500);
      await turns();
      expect(client.closed).to.equal(false);
      rig.advance(500);
      await client.gone();
    });

    it("an answer of the wrong QoS or step is a protocol error; one for nothing is not", async () => {
      for (const more of [{}, durable(version)]) {
        const publisher = await rig.client(version, "p");
        const wrongs: ReadonlyArray<readonly [1 | 2, "puback" | "pubrec" | "pubcomp"]> = [
          [1, "pubrec"],
          [1, "pubcomp"],
          [2, "puback"],
          [2, "pubcomp"],
        ];
        for (const [qos, cmd] of wrongs) {
          const client = await rig.client(version, `s${qos}${cmd}`, more);
          client.send({ cmd, messageId: 4000 });
          await client.subscribe("t", qos);
          publisher.publish("t", "x", qos, { messageId: 1 });
          if (qos === 2) publisher.send({ cmd: "pubrel", messageId: 1 });
          const { messageId } = await client.next("publish");
          client.send({ cmd, messageId: messageId as number });
          await client.gone();
          if (version === 5) expect((await client.next("disconnect")).reasonCode).to.equal(0x82);
        }
      }
    });
  });
}

describe("faults, MQTT 5 only", () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig();
  });
  afterEach(() => rig.close());

  const badProperties: ReadonlyArray<readonly [string, string, number]> = [
    ["a Receive Maximum of 0", "03 210000", 0x82],
    ["a Maximum Packet Size of 0", "05 2700000000", 0x82],
    ["the Session Expiry twice", "0a 1100000001 1100000001", 0x82],
    ["a property of PUBLISH", "02 0101", 0x81],
    ["Request Problem Information of 2", "02 1702", 0x82],
    ["an unknown property", "02 7f00", 0x81],
    ["Authentication Data without a method", "03 160000", 0x82],
  ];
  for (const [what, properties, code] of badProperties) {
    it(`CONNECT with ${what}: 0x${code.toString(16)} in the CONNACK`, async () => {
      const client = rig.open(5);
      client.raw(connectBytes(5, `02 0000 ${properties} 0001 61`));
      expect((await client.connack()).code).to.equal(code);
      await client.gone();
    });
  }

  const inSession: ReadonlyArray<readonly [string, string, number]> = [
    ["a subscription identifier from a client [MQTT-3.3.4-6]", "30 06 0001 74 02 0b01", 0x82],
    ["a topic alias of 0 [MQTT-3.3.2-8]", "30 07 0001 74 03 230000", 0x94],
    ["a topic alias that was never set", "30 06 0000 03 230001", 0x82],
    ["a response topic with a wildcard [MQTT-3.3.2-14]", "30 08 0001 74 04 0800012b", 0x90],
    ["a property of CONNECT in a PUBLISH", "30 09 0001 74 05 1100000001", 0x81],
    ["the content type twice", "30 0c 0001 74 08 03000161 03000161", 0x82],
    ["properties longer than the packet", "30 05 0001 74 02 01", 0x81],
    ["a subscription identifier of 0", "82 09 0001 02 0b00 0001 74 00", 0x82],
    ["two subscription identifiers", "82 0b 0001 04 0b010b02 0001 74 00", 0x82],
    ["Retain Handling 3", "82 07 0001 00 0001 74 30", 0x82],
    ["No Local on a shared subscription [MQTT-3.8.3-4]", "82 10 0001 00 000a 2473686172652f612f74 04", 0x82],
    ["AUTH without enhanced authentication", "f0 00", 0x82],
    ["AUTH with a flag [MQTT-3.15.1-1]", "f1 00", 0x81],
    ["a PUBACK with an unknown reason code", "40 03 0001 01", 0x81],
  ];
  for (const [what, bytes, code] of inSession) {
    it(`${what}: DISCONNECT 0x${code.toString(16)}, with a reason for people`, async () => {
      const client = await rig.client(5, "a");
      client.raw(hex(bytes));
      const { reasonCode, properties } = await client.next("disconnect");
      expect(reasonCode).to.equal(code);
      expect(properties?.reasonString).to.be.a("string");
      await client.gone();
    });
  }

  it("says why as long as the client takes it, else only the code [MQTT-3.14.2-3], [MQTT-3.1.2-24]", async () => {
    const say = async (maximumPacketSize: number): Promise<[number | undefined, string | undefined]> => {
      const client = await rig.client(5, "a", { properties: { maximumPacketSize } });
      client.raw(hex("c1 00"));
      const { reasonCode, properties } = await client.next("disconnect");
      return [reasonCode, properties?.reasonString];
    };
    expect((await say(100))[1]).to.be.a("string");
    expect(await say(20)).to.deep.equal([0x81, undefined]);
  });

  it("a client that does not take our CONNACK is refused, and leaves nothing behind", async () => {
    const client = rig.open(5);
    client.send(
      connectPacket(5, "a", { ...durable(5), properties: { sessionExpiryInterval: 9, maximumPacketSize: 8 } }),
    );
    expect((await client.connack()).code).to.equal(0x95);
    await client.gone();
    expect(rig.broker.stats().sessions).to.equal(0);
    const silent = rig.open(5);
    silent.send(connectPacket(5, "a", { properties: { maximumPacketSize: 4 } }));
    await silent.gone();
    expect(silent.received).to.deep.equal([]);
  });

  it("a SUBACK that the client does not take ends the connection with 0x95", async () => {
    const client = await rig.client(5, "a", { properties: { maximumPacketSize: 30 } });
    const subscriptions = Array.from({ length: 40 }, (_, at) => ({
      topic: `t${at}`,
      qos: 0 as const,
      nl: false,
      rap: false,
      rh: 0,
    }));
    client.send({ cmd: "subscribe", messageId: 1, subscriptions });
    expect((await client.next("disconnect")).reasonCode).to.equal(0x95);
  });

  it("take-over tells the older connection why, even before the CONNACK of the newer", async () => {
    const order: string[] = [];
    const first = await rig.client(5, "a");
    const second = rig.open(5);
    const watch = (client: TestClient, name: string): void => {
      const push = client.received.push.bind(client.received);
      client.received.push = (...packets) => {
        order.push(...packets.map(({ cmd }) => `${name} ${cmd}`));
        return push(...packets);
      };
    };
    watch(first, "first");
    watch(second, "second");
    second.send(connectPacket(5, "a"));
    await second.connack();
    expect(order).to.deep.equal(["first disconnect", "second connack"]);
    const { reasonCode, properties } = await first.next("disconnect");
    expect([reasonCode, properties?.reasonString]).to.deep.equal([
      0x8e,
      "another connection came with the same client id",
    ]);
  });

  it("the end of the gateway is 0x8B, an operator's 0x98", async () => {
    const client = await rig.client(5, "a");
    rig.broker.disconnect("a");
    expect((await client.next("disconnect")).reasonCode).to.equal(0x98);
    const other = await rig.client(5, "a");
    await rig.close();
    expect((await other.next("disconnect")).reasonCode).to.equal(0x8b);
  });

  it("a password without a user name is allowed in 5 (section 3.1.2.9), not in 3.1.1 [MQTT-3.1.2-22]", async () => {
    const answer = async (version: Version, rest: string): Promise<TestClient> => {
      const client = rig.open(version);
      client.raw(connectBytes(version, rest));
      await turns();
      return client;
    };
    expect((await (await answer(5, "42 0000 00 0001 61 0001 70")).connack()).code).to.equal(0);
    const old = await answer(4, "42 0000 0001 62 0001 70");
    await old.gone();
    expect(old.received).to.deep.equal([]);
  });
});
