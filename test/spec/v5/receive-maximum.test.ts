import { expect } from "chai";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { ack, publish } from "./frames.ts";
import { fault, joined, keptWith, withRig } from "./support.ts";

describe("MQTT 5 flow control of a client that sends too much", () => {
  const limits = { receiveMaximum: 3 };
  const many = (qos: number, count: number): Buffer =>
    Buffer.concat(Array.from({ length: count }, (_, at) => publish("t", "x", { qos, id: at + 1 })));

  it(
    "[MQTT-4.13.1-1] [3.3.4] more QoS 2 than the server's Receive Maximum without PUBCOMP: DISCONNECT 0x93",
    withRig(
      async (rig) => {
        const peer = await joined(rig);
        peer.send(many(2, 4));
        await peer.gone();
        expect((await peer.says()).filter((said) => !said.startsWith("PUBREC"))).to.deep.equal(["DISCONNECT 93"]);
      },
      { limits },
    ),
  );

  it("[MQTT-4.13.1-1] [3.3.4] more QoS 1 than the server has acknowledged: DISCONNECT 0x93", async () => {
    const store = new MemoryStore({ hold: true });
    await withRig(
      async (rig) => {
        const seen = await joined(rig, "seen", { ...keptWith(), clean: true });
        const subscribed = seen.subscribe("t", 1);
        await seen.hex();
        store.settle();
        await subscribed;
        const peer = await joined(rig);
        peer.send(many(1, 3));
        await peer.alive();
        peer.publish("t", "x", { qos: 1, id: 4 });
        await peer.gone();
        expect(await peer.says()).to.deep.equal(["DISCONNECT 93"]);
      },
      { limits, store },
    )();
  });

  it(
    "[3.3.4] exactly Receive Maximum is no fault, nor is QoS 0 besides, nor more after PUBCOMP",
    withRig(
      async (rig) => {
        const peer = await joined(rig);
        peer.send(many(2, 3), publish("t"), publish("t"));
        await peer.alive();
        peer.send(ack("pubrel", 1), publish("t", "x", { qos: 2, id: 9 }));
        await peer.alive();
        expect((await peer.says()).at(-1)).to.equal("PUBREC 9 00");
      },
      { limits },
    ),
  );

  it(
    "[4.9] a QoS 2 message sent again on a new connection is one, not two",
    withRig(
      async (rig) => {
        const first = await joined(rig, "c", keptWith());
        first.send(many(2, 3));
        await first.alive();
        await first.drop();
        const peer = await joined(rig, "c", keptWith());
        for (let id = 1; id <= 3; id += 1) peer.publish("t", "x", { qos: 2, id, dup: true });
        for (let id = 1; id <= 3; id += 1) peer.send(ack("pubrel", id));
        const all = ["PUBREC 1 00", "PUBREC 2 00", "PUBREC 3 00", "PUBCOMP 1 00", "PUBCOMP 2 00", "PUBCOMP 3 00"];
        expect(await peer.says()).to.deep.equal(all);
      },
      { limits },
    ),
  );

  it(
    "[4.9] PUBREL of a former connection leaves all places free for new messages",
    withRig(
      async (rig) => {
        const first = await joined(rig, "c", keptWith());
        first.send(many(2, 3));
        await first.alive();
        await first.drop();
        const peer = await joined(rig, "c", keptWith());
        for (let id = 1; id <= 3; id += 1) peer.send(ack("pubrel", id));
        for (let id = 11; id <= 13; id += 1) peer.publish("t", "x", { qos: 2, id });
        await peer.alive();
        expect((await peer.says()).filter((said) => said.startsWith("PUBREC"))).to.have.length(3);
      },
      { limits },
    ),
  );

  it(
    "[MQTT-4.13.1-1] a packet larger than the server's Maximum Packet Size: DISCONNECT 0x95",
    withRig((rig) => fault(rig, publish("t", Buffer.alloc(1000)), [0x95]), { limits: { maxPacketSize: 1000 } }),
  );
  it(
    "[3.2.2.3.6] one byte below it is no fault: the whole packet counts",
    withRig(
      async (rig) => {
        const peer = await joined(rig);
        const full = publish("t", Buffer.alloc(1000 - 7));
        expect(full.length).to.equal(1000);
        peer.send(full);
        await peer.alive();
        await fault(rig, publish("t", Buffer.alloc(1000 - 6)), [0x95]);
      },
      { limits: { maxPacketSize: 1000 } },
    ),
  );
});
