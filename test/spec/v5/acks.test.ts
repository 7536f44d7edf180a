import { expect } from "chai";
import { ack, byte, P, type Property, packet, properties, u16 } from "./frames.ts";
import { fault, joined, kept, type Peer, type Rig, type RigOptions, withRig } from "./support.ts";

type Kind = "puback" | "pubrec" | "pubrel" | "pubcomp";
const firsts: ReadonlyArray<readonly [Kind, number]> = [
  ["puback", 0x40],
  ["pubrec", 0x50],
  ["pubrel", 0x60],
  ["pubcomp", 0x70],
];
const told: readonly Property[] = [
  [P.reason, "because"],
  [P.user, ["a", "b"]],
  [P.user, ["a", "c"]],
];

/** A client that has one message of this QoS in flight, and what follows it. */
async function inFlight(rig: Rig, qos: 1 | 2): Promise<{ peer: Peer; id: number }> {
  const peer = await joined(rig, "c", kept);
  await peer.subscribe("t", qos);
  const writer = await joined(rig, "writer");
  writer.publish("t", "x", { qos: 1, id: 1 });
  const { id } = await peer.next("PUBLISH");
  return { peer, id };
}

/** Nothing is left of it: not sent again on the next connection. */
async function settled(rig: Rig, peer: Peer): Promise<void> {
  await peer.alive();
  await peer.drop();
  expect(await (await joined(rig, "c", kept)).says()).to.deep.equal([]);
}

describe("MQTT 5 acknowledgements: form", () => {
  for (const [kind, first] of firsts) {
    const wrong = Array.from({ length: 16 }, (_, flags) => flags).filter(
      (flags) => flags !== (kind === "pubrel" ? 2 : 0),
    );
    it(
      `[MQTT-2.1.3-1] [MQTT-3.6.1-1] ${kind.toUpperCase()} with other header flags is a Malformed Packet`,
      withRig(async (rig) => {
        for (const flags of wrong) await fault(rig, packet(first | flags, u16(1)), [0x81]);
      }),
    );

    const good = first | (kind === "pubrel" ? 2 : 0);
    const broken: ReadonlyArray<readonly [string, Buffer]> = [
      ["nothing in it", packet(good)],
      ["half an id", packet(good, byte(0))],
      ["a Property Length beyond its end", packet(good, u16(1), byte(0), byte(5))],
      ["bytes behind its properties", packet(good, u16(1), byte(0), byte(0), byte(0))],
      ["bytes behind a Reason String", packet(good, u16(1), byte(0), properties([[P.reason, "r"]]), byte(0))],
    ];
    for (const [name, bytes] of broken) {
      it(
        `[2.1.4] [MQTT-4.13.1-1] ${kind.toUpperCase()} with ${name} is a Malformed Packet`,
        withRig((rig) => fault(rig, bytes, [0x81])),
      );
    }
    it(
      `[2.2.1] ${kind.toUpperCase()} of packet id 0 is a fault, or meets nothing`,
      withRig(async (rig) => {
        const peer = await joined(rig);
        peer.send(ack(kind, 0));
        const said = (await peer.says()).join();
        expect(said).to.match(/^$|^DISCONNECT 8[12]$/);
      }),
    );
  }

  const forms: ReadonlyArray<readonly [string, number | undefined, readonly Property[] | undefined]> = [
    ["two bytes: 0x00", undefined, undefined],
    ["a reason code and no Property Length", 0, undefined],
    ["a reason code and no properties", 0, []],
    ["a reason code and all properties", 0, told],
    ["No matching subscribers", 0x10, undefined],
  ];
  for (const [name, code, list] of forms) {
    it(
      `[3.4.2.1] [MQTT-4.3.2-3] PUBACK: ${name}`,
      withRig(async (rig) => {
        const { peer, id } = await inFlight(rig, 1);
        peer.send(ack("puback", id, code, list));
        await settled(rig, peer);
      }),
    );
    it(
      `[3.5.2.1] [MQTT-4.3.3-4] PUBREC: ${name}`,
      withRig(async (rig) => {
        const { peer, id } = await qos2(rig);
        peer.send(ack("pubrec", id, code, list));
        expect(await peer.says()).to.deep.equal([`PUBREL ${id} 00`]);
      }),
    );
  }
  for (const [name, code, list] of forms.slice(0, 4)) {
    it(
      `[3.6.2.1] [MQTT-4.3.3-11] PUBREL: ${name}`,
      withRig(async (rig) => {
        const peer = await joined(rig);
        peer.publish("t", "x", { qos: 2, id: 77 });
        peer.send(ack("pubrel", 77, code, list));
        expect(await peer.says()).to.deep.equal(["PUBREC 77 00", "PUBCOMP 77 00"]);
      }),
    );
    it(
      `[3.7.2.1] [MQTT-4.3.3-5] PUBCOMP: ${name}`,
      withRig(async (rig) => {
        const { peer, id } = await qos2(rig);
        peer.send(ack("pubrec", id));
        await peer.next("PUBREL");
        peer.send(ack("pubcomp", id, code, list));
        await settled(rig, peer);
      }),
    );
  }
});

async function qos2(rig: Rig): Promise<{ peer: Peer; id: number }> {
  const peer = await joined(rig, "c", kept);
  await peer.subscribe("t", 2);
  const writer = await joined(rig, "writer");
  writer.publish("t", "x", { qos: 2, id: 1 });
  const { id } = await peer.next("PUBLISH");
  return { peer, id };
}

describe("MQTT 5 acknowledgements: what they say", () => {
  for (const code of [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]) {
    it(
      `[MQTT-4.4.0-2] [MQTT-3.4.2-1] PUBACK 0x${code.toString(16)} acknowledges: not sent again`,
      withRig(async (rig) => {
        const { peer, id } = await inFlight(rig, 1);
        peer.send(ack("puback", id, code));
        await settled(rig, peer);
      }),
    );
    it(
      `[MQTT-4.4.0-2] [MQTT-4.3.3-4] PUBREC 0x${code.toString(16)} ends it: no PUBREL, not sent again`,
      withRig(async (rig) => {
        const { peer, id } = await qos2(rig);
        peer.send(ack("pubrec", id, code));
        await settled(rig, peer);
      }),
    );
  }

  it(
    "[MQTT-3.6.2-1] [MQTT-4.3.3-4] PUBREC of an unknown id is answered with PUBREL, 0x92",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.send(ack("pubrec", 500));
      expect(await peer.says()).to.deep.equal(["PUBREL 500 92"]);
    }),
  );
  it(
    "[MQTT-3.7.2-1] [MQTT-4.3.3-11] PUBREL of an unknown id is answered with PUBCOMP, 0x92",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.send(ack("pubrel", 500));
      expect(await peer.says()).to.deep.equal(["PUBCOMP 500 92"]);
    }),
  );
  it(
    "[MQTT-2.2.1-5] PUBREL 0x92 from a client that forgot the message ends it: PUBCOMP",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.publish("t", "x", { qos: 2, id: 77 });
      peer.send(ack("pubrel", 77, 0x92));
      const [first, second] = await peer.take();
      expect([first?.kind, second?.kind, second?.id]).to.deep.equal(["PUBREC", "PUBCOMP", 77]);
      peer.publish("t", "y", { qos: 2, id: 77 });
      expect(await peer.says()).to.deep.equal(["PUBREC 77 00"]);
    }),
  );
  it(
    "[MQTT-4.3.3-5] PUBCOMP 0x92 from a client that forgot the id ends it: PUBREL is not sent again",
    withRig(async (rig) => {
      const { peer, id } = await qos2(rig);
      peer.send(ack("pubrec", id));
      await peer.next("PUBREL");
      peer.send(ack("pubcomp", id, 0x92));
      await settled(rig, peer);
    }),
  );
  it(
    "[MQTT-4.3.2-3] PUBACK does not end QoS 2, nor PUBREC and PUBCOMP QoS 1",
    withRig(async (rig) => {
      const { peer, id } = await qos2(rig);
      peer.send(ack("puback", id));
      await peer.drop();
      const again = await joined(rig, "c", kept);
      expect(await again.says()).to.deep.equal(["PUBLISH q2 t=x dup"]);
    }),
  );

  const full: ReadonlyArray<readonly [string, RigOptions, (rig: Rig) => void]> = [
    [
      "the disk is full",
      {},
      (rig) => {
        rig.store.verdict = "full";
      },
    ],
    [
      "the disk has failed",
      {},
      (rig) => {
        rig.store.verdict = "failed";
      },
    ],
  ];
  for (const [name, options, prepare] of full) {
    it(
      `[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-4.3.3-9] ${name}: a code of 0x80 or more, no message, and the id is free`,
      withRig(async (rig) => {
        const seen = await joined(rig, "seen", kept);
        await seen.subscribe("t", 2);
        const peer = await joined(rig);
        prepare(rig);
        peer.publish("t", "no", { qos: 1, id: 5 });
        peer.publish("t", "no", { qos: 2, id: 6 });
        const refusedBoth = await peer.take();
        expect(refusedBoth.map(({ kind, id }) => [kind, id])).to.deep.equal([
          ["PUBACK", 5],
          ["PUBREC", 6],
        ]);
        for (const { codes } of refusedBoth) expect(codes[0]).to.be.at.least(0x80);
        rig.store.verdict = "ok";
        peer.publish("t", "yes", { qos: 2, id: 6, dup: true });
        peer.publish("t", "yes", { qos: 1, id: 5, dup: true });
        expect(await peer.says()).to.have.members(["PUBREC 6 00", "PUBACK 5 00"]);
        expect((await seen.says()).sort()).to.deep.equal(["PUBLISH q1 t=yes", "PUBLISH q2 t=yes"]);
      }, options),
    );
  }
});
