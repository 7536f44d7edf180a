import { expect } from "chai";
import { ack, connect, disconnect, P, type Property, publish, subscribe, unsubscribe } from "./frames.ts";
import { joined, open, type Peer, type Rig, refused, welcomed, withRig } from "./support.ts";

describe("MQTT 5 CONNECT properties: faults", () => {
  const faults: ReadonlyArray<readonly [string, readonly Property[]]> = [
    ["[3.1.2.11.3] Receive Maximum 0", [[P.receiveMaximum, 0]]],
    ["[3.1.2.11.4] Maximum Packet Size 0", [[P.maximumPacket, 0]]],
    ["[3.1.2.11.6] Request Response Information 2", [[P.requestResponse, 2]]],
    ["[3.1.2.11.7] Request Problem Information 2", [[P.requestProblem, 2]]],
    ["[3.1.2.11.10] Authentication Data without a method", [[P.authData, Buffer.from([1])]]],
  ];
  for (const [name, list] of faults) {
    it(
      `[MQTT-4.13.1-1] ${name} is a Protocol Error`,
      withRig((rig) => refused(rig, connect({ properties: list }), [0x82])),
    );
  }

  const wills: ReadonlyArray<readonly [string, readonly Property[]]> = [
    ["Will Delay Interval", [[P.willDelay, 1]]],
    ["Payload Format Indicator", [[P.payloadFormat, 1]]],
    ["Message Expiry Interval", [[P.expiry, 9]]],
    ["Content Type", [[P.contentType, "a"]]],
    ["Response Topic", [[P.responseTopic, "a"]]],
    ["Correlation Data", [[P.correlation, Buffer.from([1])]]],
  ];
  for (const [name, list] of wills) {
    it(
      `[3.1.3.2] [MQTT-4.13.1-1] ${name} twice in the will is a Protocol Error, once is not`,
      withRig(async (rig) => {
        await (await joined(rig, "once", { will: { properties: list } })).drop();
        await refused(rig, connect({ will: { properties: [...list, ...list] } }), [0x82]);
      }),
    );
  }

  it(
    "[MQTT-4.12.0-1] an Authentication Method that the server does not know is refused with 0x8C or 0x87",
    withRig((rig) => refused(rig, connect({ properties: [[P.authMethod, "no such method"]] }), [0x8c, 0x87])),
  );

  it(
    "[3.1.2.11.8] User Properties may come many times, the same name too",
    withRig(async (rig) => {
      const list: Property[] = ["1", "2", "1"].map((value) => [P.user, ["a", value]]);
      await joined(rig, "c", { properties: [...list, [P.sessionExpiry, 0], ...list] });
    }),
  );
});

/** Provokes the packets that carry a reason: refused PUBLISH of QoS 1 and 2, unknown ids, a refused and a needless filter. */
async function provoke(rig: Rig, peer: Peer): Promise<void> {
  rig.store.verdict = "full";
  peer.send(publish("t", "x", { qos: 1, id: 1, retain: true }), publish("t", "x", { qos: 2, id: 2, retain: true }));
  peer.send(ack("pubrel", 900), ack("pubrec", 901));
  peer.send(
    subscribe(
      3,
      ["a", "b", "c"].map((filter) => [filter, 0] as const),
    ),
    unsubscribe(4, ["nothing"]),
  );
  expect((await peer.next("PUBACK")).codes[0]).to.be.at.least(0x80);
}

describe("MQTT 5 CONNECT properties: what they bind the server to", () => {
  const limits = { maxSubscriptions: 1 };

  it(
    "[MQTT-3.1.2-29] Request Problem Information 0: no Reason String and no User Property in acknowledgements",
    withRig(
      async (rig) => {
        const peer = await joined(rig, "c", { properties: [[P.requestProblem, 0]] });
        await provoke(rig, peer);
        const got = await peer.take();
        expect(got.map(({ kind }) => kind)).to.include.members(["PUBREC", "PUBCOMP", "SUBACK", "UNSUBACK"]);
        for (const { kind, properties } of got) expect(properties, kind).to.deep.equal([]);
      },
      { limits },
    ),
  );

  it(
    "[MQTT-3.1.2-29] Request Problem Information 0: User Properties of a message are passed on nevertheless",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", { properties: [[P.requestProblem, 0]] });
      await peer.subscribe("t");
      peer.publish("t", "x", { properties: [[P.user, ["a", "b"]]] });
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 t=x 38:a,b"]);
    }),
  );

  it(
    "[MQTT-3.4.2-2, -3] [MQTT-3.5.2-2, -3] [MQTT-3.6.2-2, -3] [MQTT-3.7.2-2, -3] [MQTT-3.9.2-1, -2] [MQTT-3.11.2-1, -2] reasons and user properties keep within the client's Maximum Packet Size",
    withRig(
      async (rig) => {
        const size = (await welcomed(rig, "first", { properties: [[P.maximumPacket, 100]] })).connack.bytes.length;
        const peer = await joined(rig, "c", { properties: [[P.maximumPacket, size]] });
        await provoke(rig, peer);
        const got = await peer.take();
        expect(got.map(({ kind }) => kind)).to.include.members(["PUBREC", "PUBCOMP", "PUBREL", "SUBACK", "UNSUBACK"]);
        for (const { kind, bytes } of got) expect(bytes.length, kind).to.be.at.most(size);
      },
      { limits },
    ),
  );

  it(
    "[MQTT-3.14.2-3, -4] [MQTT-3.14.2-2] DISCONNECT keeps within the client's Maximum Packet Size, without Session Expiry Interval",
    withRig(async (rig) => {
      const size = (await welcomed(rig, "first", { properties: [[P.maximumPacket, 100]] })).connack.bytes.length;
      const peer = await joined(rig, "c", { properties: [[P.maximumPacket, size]] });
      peer.send(subscribe(1, []));
      await peer.gone();
      const [last] = await peer.take();
      expect(last?.kind).to.equal("DISCONNECT");
      expect(last?.bytes.length).to.be.at.most(size);
    }),
  );

  it(
    "[MQTT-3.1.2-24] a SUBACK that does not fit is not sent",
    withRig(async (rig) => {
      const size = (await welcomed(rig, "first", { properties: [[P.maximumPacket, 100]] })).connack.bytes.length;
      const peer = await joined(rig, "c", { properties: [[P.maximumPacket, size]] });
      peer.send(
        subscribe(
          1,
          Array.from({ length: 100 }, (_, at) => [`t${at}`, 0] as const),
        ),
      );
      for (const { bytes } of await peer.take()) expect(bytes.length).to.be.at.most(size);
    }),
  );

  it(
    "[3.1.2.11.3] without Receive Maximum a client takes 65,535 in flight: the server does not wait after a few",
    withRig(
      async (rig) => {
        const peer = await joined(rig);
        await peer.subscribe("t", 1);
        for (let id = 1; id <= 300; id += 1) peer.publish("t", "x", { qos: 1, id });
        const got = await peer.take();
        expect(got.filter(({ kind }) => kind === "PUBLISH").length).to.equal(300);
      },
      { limits: { maxInflight: 65_535, receiveMaximum: 65_535 } },
    ),
  );

  it(
    "[3.1.2.11.3] a Receive Maximum of a former connection does not count any more",
    withRig(async (rig) => {
      await (
        await joined(rig, "c", {
          clean: false,
          properties: [
            [P.sessionExpiry, 60],
            [P.receiveMaximum, 1],
          ],
        })
      ).drop();
      const peer = await joined(rig, "c", { clean: false });
      await peer.subscribe("t", 1);
      for (let id = 1; id <= 3; id += 1) peer.publish("t", "x", { qos: 1, id });
      expect((await peer.says()).filter((said) => said.startsWith("PUBLISH")).length).to.equal(3);
    }),
  );

  it(
    "[3.1.2.11.2] without Session Expiry Interval the session ends with the connection",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", { clean: false });
      peer.send(disconnect(0));
      await peer.gone();
      expect(rig.broker.stats().sessions).to.equal(0);
      const other = open(rig);
      other.send(connect({ id: "c", clean: false }));
      expect(await other.says()).to.deep.equal(["CONNACK 00"]);
    }),
  );
});
