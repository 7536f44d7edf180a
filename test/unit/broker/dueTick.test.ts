/** How often an idle broker wakes, and that nothing comes late for it. */
import { expect } from "chai";
import { limitDefaults } from "../../../src/broker/options.ts";
import { type ManualClock, Rig, type TestClient, turns, versions } from "../../helpers/brokerRig.ts";

/** How often a timer of it came while `work` ran. */
async function wakes(clock: ManualClock, work: () => Promise<void>): Promise<number> {
  let count = 0;
  const setTimer = clock.setTimer.bind(clock);
  clock.setTimer = (ms, callback) =>
    setTimer(ms, () => {
      count += 1;
      callback();
    });
  await work();
  return count;
}

describe("the broker's tick", () => {
  it("comes once a second while clients only ping", async () => {
    const rig = new Rig();
    const clients: TestClient[] = [];
    for (let n = 0; n < 10; n += 1) clients.push(await rig.client(4, `c${n}`, { keepalive: 60 }));
    const count = await wakes(rig.clock, async () => {
      for (let second = 0; second < 600; second += 1) {
        rig.advance(1000);
        if (second % 50 === 0) for (const client of clients) client.send({ cmd: "pingreq" });
        if (second % 50 === 0) await turns();
      }
    });
    expect(count).to.be.within(598, 602);
    expect(rig.broker.stats().connections).to.equal(10);
    await rig.close();
  });

  for (const version of versions) {
    it(`MQTT ${version}: a Keep Alive is over after one and a half times, whenever the connection came`, async () => {
      for (const cameMs of [0, 130, 510, 999]) {
        const rig = new Rig();
        rig.advance(5000 + cameMs);
        const client = await rig.client(version, "c", { keepalive: 1 });
        rig.advance(1500);
        await turns();
        expect(client.closed, `${cameMs}: not before`).to.equal(false);
        rig.advance(250);
        await turns();
        expect(client.closed, `${cameMs}: not much later`).to.equal(true);
        await rig.close();
      }
    });
  }

  it("the time for CONNECT is over when it is, be it less than a second", async () => {
    for (const connectTimeoutMs of [100, 700, 2300]) {
      const rig = new Rig({ limits: { ...limitDefaults, connectTimeoutMs } });
      rig.advance(3210);
      const silent = rig.open(4);
      rig.advance(connectTimeoutMs - 1);
      await turns();
      expect(silent.closed).to.equal(false);
      rig.advance(251);
      await turns();
      expect(silent.closed, `${connectTimeoutMs} ms`).to.equal(true);
      await rig.close();
    }
  });

  it("a publisher that a crowded store held back for longer than its Keep Alive is not taken for dead when it is read again", async () => {
    const rig = new Rig();
    const publisher = await rig.client(4, "publisher", { keepalive: 5 });
    const kept = await rig.client(4, "kept", { clean: false });
    kept.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "t", qos: 1 }] });
    await kept.next("suback");
    rig.store.crowded = true;
    publisher.send({ cmd: "publish", topic: "t", payload: "1", qos: 1, messageId: 1, dup: false, retain: false });
    await publisher.next("puback");
    for (let second = 0; second < 20; second += 1) {
      rig.advance(1000);
      publisher.send({ cmd: "pingreq" }); // it does its part
      await turns();
    }
    expect(publisher.received, "it is not read").to.deep.equal([]);
    rig.store.crowded = false;
    rig.advance(1000);
    await turns();
    expect(publisher.closed).to.equal(false);
    await publisher.next("pingresp");
    await rig.close();
  });

  it("nor is who stood in line for longer than that, and is only let read", async () => {
    const rig = new Rig();
    const client = await rig.client(4, "client", { keepalive: 1 });
    const busy = await rig.client(4, "busy");
    busy.raw(Buffer.alloc(10_000, "c000", "hex")); // more packets than a turn has
    client.publish("t", "x".repeat(20_000)); // so much that it has to wait for leave to read more
    rig.advance(1600);
    await turns(1);
    rig.advance(400); // a look before anything can have been read
    await turns();
    expect(client.closed).to.equal(false);
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
    await rig.close();
  });
});
