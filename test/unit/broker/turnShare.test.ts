import { expect } from "chai";
import { TurnShare } from "../../../src/broker/turnShare.ts";
import { ManualClock, Rig, turns } from "../../helpers/brokerRig.ts";

/** Takers of turns of `ms` each, who want another one as long as there were fewer than `again`. */
function line(ms: number, again: number) {
  const clock = new ManualClock();
  const share = new TurnShare(clock);
  const seen: string[] = [];
  const waiting = (name: string) => ({
    open: true,
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
    const share = new TurnShare(clock);
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
    const share = new TurnShare(clock);
    const seen: string[] = [];
    const waiting = (name: string, open: boolean) => ({
      open,
      nextTurn(): void {
        seen.push(name);
        clock.advance(4);
      },
    });
    share.wait(waiting("a", true));
    const gone = waiting("gone", false);
    share.wait(gone);
    await turns(1);
    gone.open = true; // only to see whether it is still in line
    await turns(3);
    expect(seen).to.deep.equal(["a"]);
  });

  describe("with clients whose packets take long", () => {
    const count = 20;
    const slowRig = (): Rig => {
      const rig = new Rig();
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
  });
});
