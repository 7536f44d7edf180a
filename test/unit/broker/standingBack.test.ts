import { expect } from "chai";
import { Rig, type TestClient, turns } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { metricOf } from "../../helpers/metric.ts";

const inFlightMax = 10;
const restBytes = 8000;
const limits = { partialBytes: 16 * restBytes, receiveMaximum: inFlightMax };
const paused = ({ meter }: Rig): number => metricOf(meter, "tidegate_mqtt_paused_bytes");

/** So many times as many as the client may have in flight: the disk is waited for after each. Behind them there is more to come. */
const rounds = (count: number): Buffer =>
  Buffer.concat([
    ...Array.from({ length: count * inFlightMax }, (_, n) => Buffer.from([0x33, 6, 0, 1, 0x74, 0, n + 1, 0x78])),
    Buffer.alloc(restBytes, "c000", "hex"),
  ]);

/** A disk that stands still, and so many publishers in front of it that others stand back. */
async function crowd(rig: Rig, count: number): Promise<TestClient[]> {
  const clients: TestClient[] = [];
  for (let n = 0; n < count; n += 1) {
    const client = await rig.client(4, `crowd ${n}`);
    client.raw(rounds(3));
    await turns();
    clients.push(client);
  }
  expect(metricOf(rig.meter, "tidegate_mqtt_crowds_total")).to.equal(1);
  return clients;
}

describe("while a crowd stands back for the disk", () => {
  it("who has hung up is gone once its last words were handled, and its will goes out", async () => {
    const store = new MemoryStore({ hold: true });
    const rig = new Rig({ store, limits });
    const wills: string[] = [];
    rig.broker.subscribe("will", ({ topic }) => void wills.push(topic));
    const will = { topic: "will", payload: Buffer.from("x"), qos: 0, retain: false } as const;
    const leaver = await rig.client(4, "leaver", { will });
    leaver.raw(rounds(1));
    await turns();
    leaver.drop();
    await crowd(rig, 8);
    store.settle(); // all that the leaver waits for, and of the others the first of three rounds
    await turns();
    expect(paused(rig)).to.be.above(limits.partialBytes / 8);
    expect(wills).to.deep.equal(["will"]);
    expect(rig.broker.disconnect("leaver")).to.equal(false);
    await rig.close();
  });
});
