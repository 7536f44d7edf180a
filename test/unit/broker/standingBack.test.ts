import { expect } from "chai";
import { generate } from "mqtt-packet";
import { connectPacket, Rig, type TestClient, turns } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { metricOf } from "../../helpers/metric.ts";
import { frame, opcode, RawWebSocket } from "../../helpers/rawWebSocket.ts";
import { until } from "../../helpers/wait.ts";

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

  it("what lies in a WebSocket all the same is counted, and is read with the others'", async () => {
    const { rig, store, device } = await besides();
    const before = paused(rig);
    device.socket.write(frame(opcode.binary, pings(20_000)));
    await until("it is counted", () => {
      rig.advance(1000);
      return paused(rig) >= before + 20_000;
    });
    const all = 20_000; // an answer is as long as a question
    await until("it is read and answered, and the others'", () => {
      store.settle();
      expect(device.socket.destroyed).to.equal(false);
      return device.bytes.length >= all && paused(rig) === 0;
    });
    device.drop();
    await rig.close();
  });

  it("what lies in WebSockets takes no more than the limit: who began last gives way", async () => {
    const { rig, device, clients } = await besides();
    device.socket.write(frame(opcode.binary, pings(5 * restBytes)));
    await until("it is closed", () => {
      rig.advance(1000);
      return device.socket.destroyed;
    });
    expect(paused(rig)).to.be.at.most(limits.partialBytes);
    expect(clients.map(({ closed }) => closed)).to.not.include(true);
    await rig.close();
  });
});

const pings = (bytes: number): Buffer => Buffer.alloc(bytes, "c000", "hex");

/** A client on a WebSocket that stands back, as everybody does. */
async function besides() {
  const store = new MemoryStore({ hold: true });
  const rig = new Rig({ store, limits });
  const { port } = await rig.broker.listen({ url: "ws://127.0.0.1:0/mqtt" });
  const device = await RawWebSocket.open(port);
  device.socket.write(frame(opcode.binary, generate(connectPacket(4, "device"))));
  await until("it is connected", () => device.frames().length === 1);
  device.bytes = Buffer.alloc(0);
  const clients = await crowd(rig, 12);
  return { rig, store, device, clients };
}
