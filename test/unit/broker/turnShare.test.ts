import { expect } from "chai";
import { systemClock } from "../../../src/base/clock.ts";
import { TurnShare } from "../../../src/broker/turnShare.ts";
import { ManualClock, Rig, type RigOptions, turns } from "../../helpers/brokerRig.ts";
import { metricOf } from "../../helpers/metric.ts";
import { until } from "../../helpers/wait.ts";

/** Takers of turns of `ms` each, who want another one as long as there were fewer than `again`. */
function line(ms: number, again: number) {
  const clock = new ManualClock();
  const share = new TurnShare(clock, 1000, () => {});
  const seen: string[] = [];
  const waiting = (name: string) => ({
    open: true,
    unreadBytes: 100,
    nextTurn(): void {
      if (share.spent()) {
        share.wait(this);
        return;
      }
      seen.push(name);
      clock.advance(ms);
      if (seen.length < again) share.wait(this);
    },
  });
  return { share, seen, waiting };
}

describe("the share of a turn that packets may take", () => {
  it("is spent after some milliseconds, and new in the next turn", async () => {
    const clock = new ManualClock();
    const share = new TurnShare(clock, 1000, () => {});
    expect(share.spent()).to.equal(false);
    clock.advance(3);
    expect(share.spent()).to.equal(false);
    clock.advance(1);
    expect(share.spent()).to.equal(true);
    await turns(1);
    expect(share.spent()).to.equal(false);
  });

  it("those who wait go on in the next turn in the order in which they came, and who finds it spent again is last", async () => {
    const { share, seen, waiting } = line(2, 0);
    for (const name of ["a", "b", "c", "d", "e"]) share.wait(waiting(name));
    await turns(1);
    expect(seen).to.deep.equal(["a", "b"]);
    share.wait(waiting("late"));
    await turns(1);
    expect(seen).to.deep.equal(["a", "b", "c", "d"]);
    await turns(1);
    expect(seen).to.deep.equal(["a", "b", "c", "d", "e", "late"]);
  });

  it("who has had time and wants more is behind those who have had none", async () => {
    const { share, seen, waiting } = line(4, 6); // as those whose chunk takes longer than a turn has
    for (const name of ["a", "b", "c"]) share.wait(waiting(name));
    await turns(6);
    expect(seen).to.deep.equal(["a", "b", "c", "a", "b", "c"]);
  });

  it("who ends while it waits is let go of with the next turn, not when it would have its own", async () => {
    const clock = new ManualClock();
    const share = new TurnShare(clock, 1000, () => {});
    const seen: string[] = [];
    const waiting = (name: string, open: boolean) => ({
      open,
      unreadBytes: 100,
      nextTurn(): void {
        seen.push(name);
        clock.advance(4);
      },
    });
    share.wait(waiting("a", true));
    const gone = waiting("gone", false);
    share.wait(gone);
    expect(share.heldBytes).to.equal(200);
    await turns(1);
    expect(share.heldBytes).to.equal(0);
    gone.open = true; // only to see whether it is still in line
    await turns(3);
    expect(seen).to.deep.equal(["a"]);
  });

  /** Who is let read; `time` says for whom there was time. */
  function readers(share: TurnShare, count: number, seen: number[], time: (n: number) => boolean) {
    for (let n = 0; n < count; n += 1) {
      const waiting = { open: true, unreadBytes: 0, nextTurn: (): void => granted(n) };
      const granted = (at: number): void => {
        seen.push(at);
        if (time(at) || waiting.unreadBytes > 0) return;
        waiting.unreadBytes = 64;
        share.wait(waiting, true);
      };
      share.wait(waiting);
    }
  }

  it("of those who have read nothing some are let read in each turn, so that few of them hold what they find no time for", async () => {
    const share = new TurnShare(new ManualClock(), 1e6, () => {});
    const seen: number[] = [];
    readers(share, 40, seen, () => true);
    expect(share.heldBytes).to.equal(0);
    await turns(1);
    expect(seen).to.have.length(16);
    await turns(2);
    expect(seen).to.deep.equal(Array.from({ length: 40 }, (_, n) => n));
    expect(share.crowded).to.equal(false);
  });

  it("who was let read and found no time comes before all others, in order", async () => {
    const share = new TurnShare(new ManualClock(), 1e6, () => {});
    const seen: number[] = [];
    readers(share, 20, seen, (n) => n < 13);
    await turns(1);
    expect(share.heldBytes).to.equal(3 * 64);
    seen.length = 0;
    await turns(1);
    expect(seen).to.deep.equal([13, 14, 15, 16, 17, 18, 19]);
  });

  it("whose turn it is has its time, even on a machine so slow that a look at the clock finds the turn over", async () => {
    let nowMs = 0;
    const share = new TurnShare({ ...systemClock, monotonicMs: () => (nowMs += 10) }, 1e6, () => {});
    const spent: boolean[] = [];
    for (let n = 0; n < 3; n += 1)
      share.wait({ open: true, unreadBytes: 1, nextTurn: () => spent.push(share.spent(), share.spent()) });
    await turns(3);
    expect(spent).to.deep.equal([false, true, false, true, false, true]);
  });

  it("has room for so many bytes that wait unread", () => {
    const share = new TurnShare(new ManualClock(), 1000, () => {});
    share.wait({ open: true, unreadBytes: 600, nextTurn() {} });
    expect(share.holds(400)).to.equal(true);
    expect(share.holds(401)).to.equal(false);
  });

  it("counts what they read meanwhile, and says once in a turn that there is no room for more", async () => {
    let full = 0;
    const share = new TurnShare(new ManualClock(), 1000, () => (full += 1));
    const waiting = { open: true, unreadBytes: 600, nextTurn() {} };
    share.wait(waiting);
    const grow = (bytes: number): void => {
      waiting.unreadBytes += bytes;
      share.grown(bytes);
    };
    grow(400);
    expect([share.heldBytes, full]).to.deep.equal([1000, 0]);
    grow(1);
    grow(1);
    expect([share.heldBytes, full]).to.deep.equal([1002, 1]);
    await turns(1);
    expect(share.heldBytes).to.equal(0);
  });

  describe("with clients whose packets take long", () => {
    const count = 20;
    const slowRig = (options: RigOptions = {}): Rig => {
      const rig = new Rig(options);
      let nowMs = 0;
      rig.clock.monotonicMs = () => (nowMs += 1); // each look at the clock takes one
      return rig;
    };

    it("what comes at once is not handled in one turn, and all of it is answered", async () => {
      const rig = slowRig();
      const clients = await Promise.all(Array.from({ length: count }, (_, n) => rig.client(4, `c${n}`)));
      const answered = (): number => clients.filter(({ received }) => received.length > 0).length;
      for (const client of clients) client.send({ cmd: "pingreq" });
      while (answered() === 0) await turns(1);
      expect(answered()).to.be.below(count);
      for (const client of clients) await client.next("pingresp");
      await rig.close();
    });

    it("who sends and goes is heard to the end, in order, and its DISCONNECT counts", async () => {
      const rig = slowRig();
      const watcher = await rig.client(4, "watcher");
      await watcher.subscribe("#", 0);
      const will = { topic: "will", payload: Buffer.from("x"), qos: 0, retain: false } as const;
      const clients = await Promise.all(Array.from({ length: count }, (_, n) => rig.client(4, `c${n}`, { will })));
      const each = 200;
      clients.forEach((client, n) => {
        for (let at = 0; at < each; at += 1) client.publish(`t/${n}`, String(at));
        client.send({ cmd: "disconnect" });
      });
      for (const client of clients) await client.gone();
      const got = (await watcher.take()).flatMap((packet) => (packet.cmd === "publish" ? [packet] : []));
      expect(got.filter(({ topic }) => topic === "will")).to.deep.equal([]);
      for (let n = 0; n < count; n += 1) {
        const payloads = got.filter(({ topic }) => topic === `t/${n}`).map(({ payload }) => Number(payload));
        expect(payloads).to.deep.equal(Array.from({ length: each }, (_, at) => at));
      }
      await rig.close();
    });

    it("what waits takes a bounded memory over all of them: beyond it what comes is handled at once, and nobody is closed", async () => {
      const chunk = Buffer.alloc(2048, "c000", "hex");
      const maxBytes = 5 * chunk.length;
      const rig = slowRig({ limits: { partialBytes: 4 * maxBytes } });
      const clients = await Promise.all(Array.from({ length: count }, (_, n) => rig.client(4, `c${n}`)));
      for (const client of clients) client.raw(chunk);
      const answers = (): number => clients.reduce((all, { received }) => all + received.length, 0);
      let most = 0;
      while (answers() < count * (chunk.length / 2)) {
        most = Math.max(most, metricOf(rig.meter, "tidegate_mqtt_unread_bytes"));
        await turns(1);
      }
      expect(most).to.be.within(maxBytes - chunk.length + 1, maxBytes);
      expect(metricOf(rig.meter, "tidegate_mqtt_unread_bytes")).to.equal(0);
      expect(clients.filter(({ closed }) => closed)).to.deep.equal([]);
      await rig.close();
    });

    it("when that is full, nobody else is read in the turn: it has the time of few chunks, however many begin at once", async () => {
      const chunk = Buffer.alloc(2048, "c000", "hex");
      const rig = slowRig({ limits: { partialBytes: 4 * 5 * chunk.length } });
      const clients = await Promise.all(Array.from({ length: count }, (_, n) => rig.client(4, `c${n}`)));
      const cameIn = (): number => metricOf(rig.meter, 'tidegate_mqtt_bytes_total{direction="in"}');
      const before = cameIn();
      for (const client of clients) client.raw(chunk);
      await turns(1);
      expect(cameIn() - before).to.be.at.most(8 * chunk.length); // the first, five that wait, one that found no room; one in the next turn
      for (const client of clients) while (client.received.length < chunk.length / 2) await turns(1);
      await rig.close();
    });

    it("who is gone is heard to the end all the same: what had come whole counts, its DISCONNECT above all", async () => {
      const rig = slowRig();
      const watcher = await rig.client(4, "watcher");
      await watcher.subscribe("#", 0);
      const will = { topic: "will", payload: Buffer.from("x"), qos: 0, retain: false } as const;
      const clients = await Promise.all(Array.from({ length: count }, (_, n) => rig.client(4, `c${n}`, { will })));
      const each = 200;
      const goodbye = Buffer.from([0xe0, 0]);
      clients.forEach((client, n) => {
        const packets = Array.from({ length: each }, () => Buffer.from([0x30, 5, 0, 2, 0x74, 0x41 + n, 0x78]));
        client.raw(Buffer.concat([...packets, goodbye]));
        client.drop();
      });
      await until("they have gone", () => metricOf(rig.meter, "tidegate_mqtt_connections") === 1);
      const topics = (await watcher.take()).flatMap((packet) => (packet.cmd === "publish" ? [packet.topic] : []));
      expect(topics.filter((topic) => topic === "will")).to.deep.equal([]);
      expect(topics).to.have.length(count * each);
      await rig.close();
    });

    it("copies for subscribers count, not packets alone", async () => {
      const rig = slowRig();
      const subscribers = await Promise.all(Array.from({ length: 300 }, (_, n) => rig.client(4, `s${n}`)));
      await Promise.all(subscribers.map((subscriber) => subscriber.subscribe("t")));
      const publisher = await rig.client(4, "publisher");
      const packets = 60; // fewer than those after which the clock is asked anyway
      // In turn of two sizes: those that differ in their payload only are passed on in one piece, so they count as one.
      const [short, long] = [Buffer.from([0x30, 4, 0, 1, 0x74, 0x78]), Buffer.from([0x30, 5, 0, 1, 0x74, 0x78, 0x78])];
      publisher.raw(Buffer.concat(Array.from({ length: packets }, (_, n) => (n % 2 === 0 ? short : long))));
      const came = (): number => metricOf(rig.meter, 'tidegate_mqtt_messages_total{direction="in",qos="0"}');
      while (came() === 0) await turns(1);
      expect(came()).to.be.below(10);
      while (came() < packets) await turns(1);
      await rig.close();
    });
  });
});
