import { expect } from "chai";
import {
  ack,
  byte,
  connect,
  P,
  packet,
  pingreq,
  properties,
  publish,
  subscribe,
  text,
  u16,
  unsubscribe,
} from "./frames.ts";
import { fault, joined, kept, open, refused, welcomed, withRig, witness } from "./support.ts";

const head = Buffer.concat([u16(1), byte(0)]);

/** The text's own reason codes for faults of a connected client. */
const connected: ReadonlyArray<readonly [string, Buffer, number]> = [
  ["[2.1.3] a packet that only servers send: CONNACK", packet(0x20, byte(0), byte(0), byte(0)), 0x82],
  ["[2.1.3] a packet that only servers send: SUBACK", packet(0x90, head, byte(0)), 0x82],
  ["[2.1.3] a packet that only servers send: UNSUBACK", packet(0xb0, head, byte(0)), 0x82],
  ["[2.1.3] a packet that only servers send: PINGRESP", packet(0xd0), 0x82],
  ["[MQTT-3.1.0-2] a second CONNECT", connect({ id: "faulty" }), 0x82],
  ["[MQTT-3.3.1-4] QoS 3", packet(0x36, text("t"), head), 0x81],
  ["[3.3.2.1] no topic and no alias", publish(""), 0x82],
  [
    "[3.3.2.3.3] Message Expiry Interval twice",
    publish("t", "x", {
      properties: [
        [P.expiry, 1],
        [P.expiry, 1],
      ],
    }),
    0x82,
  ],
  [
    "[3.3.2.3.4] Topic Alias twice",
    publish("t", "x", {
      properties: [
        [P.alias, 1],
        [P.alias, 1],
      ],
    }),
    0x82,
  ],
  ["[MQTT-3.3.2-9] an alias above the maximum", publish("t", "x", { properties: [[P.alias, 17]] }), 0x94],
  ["[MQTT-3.6.1-1] PUBREL with flags 0000", packet(0x60, u16(1)), 0x81],
  ["[MQTT-3.8.1-1] SUBSCRIBE with flags 0000", packet(0x80, head, text("t"), byte(0)), 0x81],
  ["[MQTT-3.8.3-2] SUBSCRIBE without filters", packet(0x82, head), 0x82],
  ["[MQTT-3.8.3-4] No Local on a shared subscription", subscribe(1, [["$share/g/t", 4]]), 0x82],
  ["[MQTT-3.8.3-5] reserved bits in the options", subscribe(1, [["t", 0x80]]), 0x81],
  ["[3.8.3.1] QoS 3 in the options", subscribe(1, [["t", 3]]), 0x82],
  ["[3.8.3.1] Retain Handling 3 in the options", subscribe(1, [["t", 0x30]]), 0x82],
  ["[MQTT-3.10.1-1] UNSUBSCRIBE with flags 0000", packet(0xa0, head, text("t")), 0x81],
  ["[MQTT-3.10.3-2] UNSUBSCRIBE without filters", unsubscribe(1, []), 0x82],
  ["[MQTT-3.14.1-1] DISCONNECT with flags 0001", packet(0xe1), 0x81],
  [
    "[3.14.2.2.2] a Session Expiry Interval after one of 0",
    packet(0xe0, byte(0), properties([[P.sessionExpiry, 9]])),
    0x82,
  ],
  ["[MQTT-4.12.0-7] AUTH without a method", packet(0xf0), 0x82],
  [
    "[2.2.2.2] a property that the packet has not",
    packet(0x82, u16(1), properties([[P.expiry, 1]]), text("t"), byte(0)),
    0x81,
  ],
  ["[1.5.4] a string that is no UTF-8", publish(Buffer.from([0xff])), 0x81],
  ["[2.1.4] a packet that ends too early", packet(0x30, u16(9), Buffer.from("t")), 0x81],
];

describe("MQTT 5 errors: the reason code of each", () => {
  for (const [name, bytes, code] of connected) {
    it(
      `[MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.4-2] ${name}: 0x${code.toString(16)}`,
      withRig((rig) => fault(rig, bytes, [code])),
    );
  }

  it(
    "[MQTT-3.14.4-1] [MQTT-4.13.1-1] packets before the fault are processed, those behind it are not",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.send(publish("t", "before", { qos: 1, id: 1 }), packet(0xc1), publish("t", "behind"), pingreq);
      await peer.gone();
      expect((await peer.says()).at(-1)).to.equal("DISCONNECT 81");
      expect(await seen.says()).to.deep.equal(["PUBLISH q1 t=before"]);
    }),
  );

  it(
    "[MQTT-3.1.2-23] [MQTT-4.13.1-1] an error ends the connection, not the session",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", kept);
      await peer.subscribe("t", 1);
      peer.publish("t", "x", { qos: 1, id: 1 });
      await peer.next("PUBLISH");
      peer.send(packet(0xc1));
      await peer.gone();
      const back = await welcomed(rig, "c", kept);
      expect(back.connack.present).to.equal(true);
      expect(await back.peer.says()).to.deep.equal(["PUBLISH q1 t=x dup"]);
    }),
  );

  it(
    "[MQTT-4.13.1-1] a refused CONNECT leaves the session that there is, and its present connection",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", kept);
      await peer.subscribe("t", 1);
      await refused(rig, connect({ id: "c", wrongFlags: 1 }), [0x81]);
      await refused(rig, connect({ id: "c", properties: [[P.receiveMaximum, 0]] }), [0x82]);
      await refused(rig, connect({ id: "c", trailing: byte(0) }), [0x81]);
      await peer.alive();
      peer.publish("t");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );

  it(
    "[4.13] acknowledgements of what is not in flight do no harm, or are a Protocol Error",
    withRig(async (rig) => {
      for (const kind of ["puback", "pubcomp"] as const) {
        const peer = await joined(rig);
        peer.send(ack(kind, 1234));
        expect(["", "DISCONNECT 82"]).to.include((await peer.says()).join());
      }
    }),
  );

  it(
    "[4.13] a connection that ends in the middle of a packet leaves nothing of it",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.send(publish("t", "half").subarray(0, 6));
      await peer.drop();
      const early = open(rig);
      early.send(connect().subarray(0, 9));
      await early.drop();
      expect(await seen.says()).to.deep.equal([]);
      expect(rig.broker.stats()).to.include({ connections: 1, sessions: 1 });
    }),
  );
});
