import { expect } from "chai";
import { connectPacket, Rig, type TestClient, turns, versions } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { metricOf } from "../../helpers/metric.ts";

const chunkBytes = 40_000;
const pings = Buffer.alloc(chunkBytes, "c000", "hex");
const paused = (rig: Rig): number => metricOf(rig.meter, "tidegate_mqtt_paused_bytes");
const closedFor = (rig: Rig): number => metricOf(rig.meter, 'tidegate_mqtt_protocol_errors_total{reason="paused"}');
const gone = (clients: readonly TestClient[]): boolean[] => clients.map(({ closed }) => closed);

describe("what has come from clients that are not read now", () => {
  for (const version of versions) {
    it(`takes a bounded memory over all of them while their log-ins last: who stands for longest gives way, MQTT ${version}`, async () => {
      const settled: Array<(right: boolean) => void> = [];
      const rig = new Rig({
        anonymous: false,
        limits: { partialBytes: 4 * chunkBytes },
        authenticate: () => true,
        verify: (_kept, _password, tell) => void settled.push(tell),
      });
      const clients: TestClient[] = [];
      for (let n = 0; n < 6; n += 1) {
        const client = rig.open(version);
        client.send(connectPacket(version, `c${n}`, { username: "u", password: Buffer.from("p") }));
        client.raw(pings);
        await turns();
        clients.push(client);
        expect(paused(rig)).to.be.at.most(4 * chunkBytes);
      }
      expect(gone(clients)).to.deep.equal([true, true, false, false, false, false]);
      expect(closedFor(rig)).to.equal(2);
      expect(paused(rig)).to.be.above(3 * chunkBytes);
      clients[2]!.drop();
      await turns();
      expect(paused(rig)).to.be.below(3 * chunkBytes + 1000);
      await rig.close();
      expect(paused(rig)).to.equal(0);
    });
  }

  it("is counted while they wait for acknowledgements, and no longer once they are read", async () => {
    const store = new MemoryStore({ hold: true });
    const rig = new Rig({ store, limits: { partialBytes: 10 * chunkBytes, receiveMaximum: 10 } });
    const client = await rig.client(4, "c");
    const publish = (id: number): Buffer => Buffer.from([0x33, 6, 0, 1, 0x74, 0, id, 0x78]);
    client.raw(Buffer.concat([...Array.from({ length: 10 }, (_, n) => publish(n + 1)), pings]));
    await turns();
    expect(paused(rig)).to.be.above(chunkBytes);
    store.settle();
    while (client.received.length < 10 + pings.length / 2) await turns(1);
    expect(paused(rig)).to.equal(0);
    expect(client.closed).to.equal(false);
    await rig.close();
  });
});
