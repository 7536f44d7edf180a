import { connect } from "node:net";
import { expect } from "chai";
import { generate } from "mqtt-packet";
import { silentLog } from "../../../src/base/log.ts";
import { Meter } from "../../../src/base/meter.ts";
import { PausedMemory } from "../../../src/broker/pausedMemory.ts";
import { connectPacket, Rig, TestClient, turns, versions } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { type LoggedLine, recordingLog } from "../../helpers/memoryUplink.ts";
import { metricOf } from "../../helpers/metric.ts";
import { until } from "../../helpers/wait.ts";

const KiB = 1024;

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

const restBytes = 8000;
/** Ten that the client may have in flight, and behind them what is not read until the disk has these. */
const burst = (from: number): Buffer =>
  Buffer.concat([
    ...Array.from({ length: 10 }, (_, n) => Buffer.from([0x33, 6, 0, 1, 0x74, 0, from + n, 0x78])),
    pings.subarray(0, restBytes),
  ]);
const answers = 10 + restBytes / 2;
const logged = (lines: LoggedLine[], text: string): number =>
  lines.filter(({ message }) => message.includes(text)).length;

/** Over TCP: of who is not read nothing lies in the broker's memory, as it would over a duplexPair. */
async function overTcp(port: number, clientId: string): Promise<TestClient> {
  const client = new TestClient(connect(port, "127.0.0.1"), 4);
  client.send(connectPacket(4, clientId));
  await client.connack();
  return client;
}

/** The disk goes on until each of them has so many answers. Fails when one is closed. */
const served = (store: MemoryStore, clients: readonly TestClient[], count: number): Promise<true> =>
  until(`${count} answers for each`, () => {
    store.settle();
    expect(gone(clients)).to.not.include(true);
    return clients.every(({ received }) => received.length >= count);
  });

describe("a crowd of publishers in front of a disk that stands still", () => {
  for (const before of [true, false])
    it(`is served once it goes on, and nobody is closed: ${before ? "they published before" : "it is their first"}`, async () => {
      const lines: LoggedLine[] = [];
      const store = new MemoryStore({ hold: true });
      const limits = { partialBytes: 16 * restBytes, receiveMaximum: 10 };
      const rig = new Rig({ store, limits, log: recordingLog(lines) });
      const { port } = await rig.broker.listen({ url: "mqtt://127.0.0.1:0" });
      const clients: TestClient[] = [];
      for (let n = 0; n < 40; n += 1) clients.push(await overTcp(port, `c${n}`));
      if (before) {
        for (const client of clients) client.raw(burst(1).subarray(0, 8));
        await served(store, clients, 1);
      }
      const idle = await rig.client(4, "idle");
      for (const client of clients) {
        client.raw(burst(1));
        await turns(1);
        expect(paused(rig)).to.be.at.most(16 * restBytes);
      }
      await until("they stand back", () => paused(rig) >= (before ? 6 : 10) * restBytes);
      await turns();
      expect(gone(clients)).to.not.include(true);
      expect(paused(rig)).to.be.at.most((before ? 9 : 13) * restBytes);
      if (before) {
        idle.send({ cmd: "pingreq" });
        await idle.next("pingresp");
      }
      expect(metricOf(rig.meter, "tidegate_mqtt_crowds_total")).to.equal(1);
      expect(logged(lines, "the disk does not keep up")).to.equal(1);
      await served(store, clients, answers + (before ? 1 : 0));
      expect(closedFor(rig)).to.be.NaN; // no such counter yet
      expect(paused(rig)).to.equal(0);
      await rig.close();
    });

  it("loses those who come anew and find no room, and it is said what to do", async () => {
    const lines: LoggedLine[] = [];
    const store = new MemoryStore({ hold: true });
    const rig = new Rig({
      ...{ store, log: recordingLog(lines) },
      limits: { partialBytes: 4 * restBytes, receiveMaximum: 10 },
    });
    const clients: TestClient[] = [];
    for (let n = 0; n < 7; n += 1) {
      const client = rig.open(4);
      client.raw(Buffer.concat([generate(connectPacket(4, `c${n}`)), burst(1)])); // all of it in one chunk
      await turns();
      clients.push(client);
    }
    expect(paused(rig)).to.be.at.most(4 * restBytes);
    expect(gone(clients)).to.deep.equal([false, false, false, true, true, true, true]);
    expect(closedFor(rig)).to.equal(4);
    expect(logged(lines, "limits.incompletePackets")).to.equal(1);
    await served(store, clients.slice(0, 3), 1 + answers);
    await rig.close();
  });

  it("is one, too, when it reads its answers only then", async () => {
    const store = new MemoryStore({ hold: true });
    const limits = { partialBytes: 2 * restBytes, receiveMaximum: 10, outboxBytes: 1000 };
    const rig = new Rig({ store, limits });
    const crowds = (): number => metricOf(rig.meter, "tidegate_mqtt_crowds_total");
    const client = await rig.client(4, "c");
    await client.subscribe("much");
    client.stall();
    (await rig.client(4, "other")).publish("much", "x".repeat(300 * KiB));
    await turns();
    client.raw(burst(1));
    await turns();
    expect(paused(rig)).to.be.above(restBytes - 1);
    expect(crowds()).to.equal(0);
    client.resume();
    await client.next("publish");
    await turns();
    expect(crowds()).to.equal(1);
    await rig.close();
  });
});

describe("memory of paused connections", () => {
  const rigOf = () => {
    const said: string[] = [];
    const memory = new PausedMemory(1000 * KiB, {
      ...{ log: silentLog, nowMs: () => 0, crowds: new Meter().counter("c", "") },
      standBack: () => void said.push("stand back"),
      relief: () => void said.push("relief"),
    });
    const holder = (name: string) => ({ giveWay: () => void said.push(name) });
    return { said, memory, holder };
  };
  const publisher = { lastGroup: 1, session: {} };
  const subscriber = { lastGroup: 0, session: {} };

  it("makes publishers stand back first, then everybody but who logs in, until most of it is free", () => {
    const { said, memory, holder } = rigOf();
    const holders = Array.from({ length: 8 }, (_, n) => holder(`h${n}`));
    const turnedAway: string[] = [];
    const look = (): void => {
      const [pub, sub] = [memory.turnsAway(publisher), memory.turnsAway(subscriber)];
      turnedAway.push(pub ? (sub ? "all" : "publishers") : "nobody");
      expect(memory.turnsAway({ lastGroup: 0, session: undefined })).to.equal(false);
    };
    for (const one of holders.slice(0, 7)) {
      memory.set(one, 100 * KiB, "disk");
      look();
    }
    for (const one of holders.slice(0, 7)) {
      memory.set(one, 0, "disk");
      look();
    }
    expect(turnedAway.join(" ")).to.equal(
      "nobody nobody nobody publishers publishers publishers all all all all all all nobody nobody",
    );
    expect(said).to.deep.equal(["stand back", "stand back", "relief"]);
  });

  it("takes it from who does not read our answers, the oldest first, and nobody stands back for these", () => {
    const { said, memory, holder } = rigOf();
    const slow = Array.from({ length: 5 }, (_, n) => holder(`slow ${n}`));
    for (const one of slow) memory.set(one, 200 * KiB, "client");
    expect(said).to.deep.equal([]);
    memory.set(holder("waits for the disk"), 300 * KiB, "disk");
    expect(said).to.deep.equal(["slow 0", "slow 1"]);
    expect(memory.turnsAway(publisher)).to.equal(false);
    expect(memory.bytes).to.equal(900 * KiB);
  });

  it("counts what those hold who stand back for the limit, but they do not keep themselves from relief", () => {
    const { said, memory, holder } = rigOf();
    const waiting = holder("waits for the disk");
    memory.set(waiting, 400 * KiB, "disk");
    for (let n = 0; n < 3; n += 1) memory.set(holder(`stands back ${n}`), 150 * KiB, "crowd");
    expect(memory.bytes).to.equal(850 * KiB);
    expect(memory.turnsAway(publisher)).to.equal(true);
    expect(memory.turnsAway(subscriber)).to.equal(false);
    memory.set(waiting, 0, "disk");
    expect(said).to.deep.equal(["stand back", "relief"]);
  });

  it("takes it from the latest last of all, be it that waits for the disk or stands back", () => {
    const { said, memory, holder } = rigOf();
    memory.set(holder("disk 0"), 400 * KiB, "disk");
    memory.set(holder("stands back"), 300 * KiB, "crowd");
    memory.set(holder("slow"), 200 * KiB, "client");
    memory.set(holder("disk 1"), 200 * KiB, "disk");
    expect(said).to.deep.equal(["stand back", "slow"]);
    said.length = 0;
    memory.set(holder("stands back, too"), 300 * KiB, "crowd");
    expect(said).to.deep.equal(["stands back, too"]);
  });
});
