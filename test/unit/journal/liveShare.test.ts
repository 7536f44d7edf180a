import { expect } from "chai";
import { named, ShareRig as Rig } from "./shareRig.ts";
import { generous, message, taker, textOf, turn, until } from "./support.ts";

describe("journal: backlog and fresh readings share the link", () => {
  it("not at 0: strictly by priority and age", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 3));
    rig.linkUp(0);
    await rig.put(named("fresh", 2));
    expect(await rig.drain()).to.deep.equal(["late0", "late1", "late2", "fresh0", "fresh1"]);
  });

  it("in the given parts, order kept within late and within fresh; what is left of either goes on alone", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 90));
    rig.linkUp(0.2);
    await rig.put(named("fresh", 10));
    const got = await rig.drain();
    expect(got.filter((text) => text.startsWith("late"))).to.deep.equal(named("late", 90));
    expect(got.filter((text) => text.startsWith("fresh"))).to.deep.equal(named("fresh", 10));
    // A fifth of what is sent until the fresh ones are through, never more at any time.
    const lastFresh = got.lastIndexOf("fresh9");
    expect(lastFresh).to.be.within(45, 52);
    for (let sent = 1; sent <= lastFresh; sent += 1)
      expect(got.slice(0, sent).filter((text) => text.startsWith("fresh")).length).to.be.at.most(sent * 0.2 + 1);
  });

  it("by bytes, and saves nothing up while there is nothing fresh", async () => {
    const rig = await new Rig().open();
    const large = "x".repeat(1000);
    await rig.put(named("late", 400));
    rig.linkUp(0.5);
    expect(await rig.texts(200)).to.deep.equal(named("late", 200)); // nothing fresh: all of the link, and no debt
    await rig.put(named("fresh", 10).map((text) => `${text}${large}`));
    const got = await rig.texts(100);
    const fresh = got.filter((text) => text.startsWith("fresh")).length;
    expect(fresh, "each of them is as much as about ten of the others").to.be.within(5, 9);
    expect(got.slice(0, 2).filter((text) => text.startsWith("fresh"))).to.have.length(1);
  });

  it("over priorities: each by its own order, a fresh one of a higher priority at once, of a lower in its part", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late5-", 40), 5);
    await rig.put(named("late1-", 5), 1);
    rig.linkUp(0.2);
    await rig.put(named("fresh2-", 4), 2);
    await rig.put(named("fresh5-", 2), 5);
    await rig.put(named("fresh9-", 3), 9);
    const got = await rig.drain();
    expect(got.slice(0, 3)).to.deep.equal(named("fresh9-", 3));
    const late = got.filter((text) => text.startsWith("late"));
    expect(late).to.deep.equal([...named("late5-", 40), ...named("late1-", 5)]);
    const fresh = got.filter((text) => text.startsWith("fresh"));
    expect(fresh).to.deep.equal([...named("fresh9-", 3), ...named("fresh5-", 2), ...named("fresh2-", 4)]);
    expect(got.indexOf("fresh2-3"), "not behind the backlog of 5").to.be.below(got.indexOf("late5-30"));
  });

  for (const rolled of [false, true])
    it(`what is fresh begins at a record, though a large one ${rolled ? "came after a roll" : "was taken back"} behind it`, async () => {
      const rig = await new Rig({ tuning: { spares: 0, largeRecordBytes: 2000 } }).open();
      await rig.put(named("late", 30));
      const some = await rig.take(29);
      const { segments } = rig.store.stats();
      let tried = false;
      rig.files.fault = (operation) => {
        if (operation !== "datasync" || !rolled || tried || rig.store.stats().segments === segments) return undefined;
        tried = true;
        return "EIO";
      };
      while (rig.store.stats().segments === segments) await rig.put(["y".repeat(300)], 3);
      const { head } = rig.store;
      rig.linkUp(0.5);
      for (const one of some) rig.queue.settle(one); // a segment would begin with more now
      const large = rig.queue.lane(3); // known already
      const commit = (): never => {
        rig.store.commit((txn) => {
          txn.message(message("l".repeat(3000)), [taker(large)]);
          if (!rolled) throw new Error("taken back");
        });
        throw new Error("taken");
      };
      expect(commit).to.throw(rolled ? "taken" : "taken back");
      if (!rolled) expect(rig.store.head).to.equal(head);
      expect(tried).to.equal(rolled);
      await rig.put(named("fresh", 3));
      expect((await rig.drain()).filter((text) => text.startsWith("fresh"))).to.deep.equal(named("fresh", 3));
      expect(rig.queue.stats().dropped).to.deep.equal({});
      await rig.store.close();
    });

  it("what is fresh and settled survives a kill -9; the backlog comes again", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 10));
    rig.linkUp(0.5);
    await rig.put(named("fresh", 5));
    const out = await rig.take(8);
    expect(out.filter((one) => textOf(one).startsWith("fresh"))).to.have.length(4);
    for (const one of out) if (textOf(one) !== "late1" && textOf(one) !== "fresh1") rig.queue.settle(one);
    await rig.written();
    await rig.kill();
    expect(rig.queue.stats().messages).to.equal(9);
    expect(await rig.drain()).to.deep.equal(["late1", ...named("late", 6, 4), "fresh1", "fresh4"]);
  });

  it("another outage: what was fresh waits in its place, and what is in flight does not come twice", async () => {
    const rig = await new Rig().open();
    await rig.put(named("a", 10));
    rig.linkUp(0.5);
    await rig.put(named("b", 6));
    const first = await rig.take(6); // a0 b0 a1 b1 a2 b2, in some order
    expect(first.map(textOf).sort()).to.deep.equal(["a0", "a1", "a2", "b0", "b1", "b2"]);
    const inFlight = first.filter((one) => ["a1", "b1"].includes(textOf(one)));
    for (const one of first) if (!inFlight.includes(one)) rig.queue.settle(one);
    rig.linkUp(0.5);
    await rig.put(named("c", 3));
    const got = await rig.drain(inFlight.length);
    expect(got.filter((text) => !text.startsWith("c"))).to.deep.equal([...named("a", 7, 3), ...named("b", 3, 3)]);
    expect(got.filter((text) => text.startsWith("c"))).to.deep.equal(named("c", 3));
    expect(got.indexOf("c2")).to.be.below(8);
    expect(rig.queue.stats().messages).to.equal(2);
    rig.queue.rewind();
    expect(await rig.drain()).to.deep.equal(["a1", "b1"]);
  });

  it("a rewind in the middle: all that was not settled comes again, in its order", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 6));
    rig.linkUp(0.5);
    await rig.put(named("fresh", 6));
    const out = await rig.take(8);
    for (const one of out) if (["late1", "fresh0", "fresh2"].includes(textOf(one))) rig.queue.settle(one);
    rig.queue.rewind();
    const rest = ["late0", ...named("late", 4, 2), "fresh1", ...named("fresh", 3, 3)];
    expect(await rig.drain()).to.deep.equal(rest);
  });

  it("after 64 outages without an end it is first in, first out; once it was through they share again", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 200));
    for (let outage = 0; outage < 64; outage += 1) {
      rig.linkUp(0.9);
      await rig.put([`fresh${outage}`, `left${outage}`]);
      let fresh = false;
      while (!fresh) {
        const [one] = await rig.take(1);
        rig.queue.settle(one!);
        fresh = textOf(one!) === `fresh${outage}`;
      }
    }
    rig.linkUp(0.9);
    await rig.put(["behind all"]);
    const got = await rig.drain();
    expect(got.at(-1)).to.equal("behind all");
    expect(got.filter((text) => text.startsWith("left"))).to.deep.equal(named("left", 64));
    await rig.put(named("again", 20));
    rig.linkUp(0.5);
    await rig.put(["quick"]);
    expect((await rig.drain()).indexOf("quick")).to.be.below(3);
  });

  it("drop-oldest takes the backlog's oldest, not what is fresh, in flight or waiting", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 50));
    const { bytes, messages } = rig.queue.stats();
    rig.linkUp(0.5);
    await rig.put(named("fresh", 10));
    const out = await rig.take(4);
    const each = bytes / messages;
    rig.store.uplink("cloud", { ...generous, maxBytes: each * 30 });
    await until(() => rig.queue.stats().bytes <= each * 30, "within its limit");
    const dropped = rig.queue.stats().dropped["full"] ?? 0;
    for (const one of out) rig.queue.settle(one);
    const got = await rig.drain();
    expect(got.filter((text) => text.startsWith("fresh"))).to.deep.equal(named("fresh", 8, 2));
    expect(got.filter((text) => text.startsWith("late"))).to.deep.equal(named("late", 48 - dropped, 2 + dropped));
    expect(got.length + 4 + dropped).to.equal(60);
  });

  it("drop-oldest that needs more than the backlog goes on with the oldest of what was fresh", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 50));
    const each = rig.queue.stats().bytes / 50;
    rig.linkUp(0.5);
    await rig.put(named("fresh", 50));
    const [late, fresh] = await rig.take(2);
    rig.store.uplink("cloud", { ...generous, maxBytes: each * 10 });
    await until(() => rig.queue.stats().bytes <= each * 10, "within its limit");
    const { messages, dropped } = rig.queue.stats();
    expect(messages + dropped["full"]!).to.equal(100);
    rig.queue.settle(fresh!);
    rig.queue.settle(late!);
    const got = await rig.drain();
    expect(got).to.deep.equal(named("fresh", got.length, 50 - got.length));
  });

  for (const [outages, first] of [
    [1, "in flight"],
    [1, "settled"],
    [2, "in flight"],
    [2, "settled"],
  ] as const)
    it(`drop-oldest takes whole segments, but not what is ahead of them (${outages} outages, first ones ${first})`, async () => {
      const rig = await new Rig({ segmentBytes: 60_000 }).open(); // one message each
      const filler = "x".repeat(70_000);
      const long = (name: string): string[] => named(name, 10).map((text) => `${text} ${filler}`);
      for (const text of long("a")) await rig.put([text]);
      rig.linkUp(0.5);
      for (const text of long("b")) await rig.put([text]);
      const out = await rig.take(7); // the next fresh one is read ahead
      if (first === "settled") for (const one of out) rig.queue.settle(one);
      if (outages === 2) rig.linkUp(0.5);
      for (const text of long("c")) await rig.put([text]);
      await until(() => rig.queue.stats().messages === 30 - (first === "settled" ? 7 : 0), "counted");
      rig.store.uplink("cloud", { ...generous, maxBytes: 13.5 * 70_000 });
      await until(() => rig.queue.stats().bytes <= 13.5 * 70_000, "within its limit");
      const dropped = rig.queue.stats().dropped["full"]!;
      for (const one of out) rig.queue.settle(one);
      const got = [...out.map(textOf), ...(await rig.drain())];
      expect(got.length + dropped).to.equal(30);
      expect(new Set(got).size, "none of them twice").to.equal(got.length);
      expect(rig.queue.stats()).to.deep.include({ messages: 0, bytes: 0, dropped: { full: dropped } });
    });

  it("a rewind reads again what was in flight ahead of the backlog, though reading is past it", async () => {
    const rig = await new Rig().open();
    await rig.put(named("a", 3));
    rig.linkUp(0.5);
    await rig.put(named("b", 2));
    for (const one of await rig.take(5)) if (textOf(one) !== "b0") rig.queue.settle(one);
    rig.linkUp(0.5);
    expect(rig.queue.next()).to.equal(undefined); // it will say when there is more, and for that it reads ahead
    await rig.put(["c0"]);
    rig.queue.rewind();
    expect(await rig.drain()).to.deep.equal(["b0", "c0"]);
  });

  it("what was done beside something in flight stays done, also when the backlog's reading has passed both", async () => {
    const rig = await new Rig().open();
    await rig.put(named("a", 3));
    rig.linkUp(0.5);
    await rig.put(named("b", 3));
    const out = await rig.take(6);
    for (const one of out) if (textOf(one) !== "b0") rig.queue.settle(one);
    rig.linkUp(0.5);
    await rig.put(["c0"]);
    await rig.take(1);
    await rig.written();
    await rig.kill();
    expect(await rig.drain()).to.deep.equal(["b0", "c0"]);
  });

  it("what expires while it is fresh is counted, and never comes", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 6));
    rig.linkUp(0.5);
    await rig.put(named("short", 2), 5, 1000);
    await rig.put(named("fresh", 2));
    rig.clock.advance(1000);
    const got = await rig.drain();
    expect(got.filter((text) => text.startsWith("short"))).to.deep.equal([]);
    expect(got).to.have.length(8);
    expect(rig.queue.stats().dropped).to.deep.equal({ expired: 2 });
  });

  it("disk is given back from behind a backlog that still waits, and a start finds the rest", async () => {
    const rig = await new Rig({
      segmentBytes: 2000,
      tuning: { spares: 0, checkpointBytes: 1, checkpointEveryMs: 100 },
    }).open();
    await rig.put(named("late", 20));
    rig.linkUp(0.9);
    for (let round = 0; round < 20; round += 1) await rig.put(named("fresh", 10, round * 10));
    const left = new Set(named("late", 20));
    while (rig.queue.stats().messages > left.size || left.size === 20) {
      const [one] = await rig.take(1);
      if (textOf(one!).startsWith("late") && left.size < 5) continue;
      rig.queue.settle(one!);
      left.delete(textOf(one!));
      if (rig.queue.stats().messages === left.size) break;
    }
    const before = rig.store.stats().segments;
    for (let round = 0; round < 30; round += 1) {
      rig.clock.advance(11_000);
      rig.store.commit((txn) => txn.put("m", "k", Buffer.from(String(round))));
      for (let turns = 0; turns < 30; turns += 1) await turn();
    }
    expect(rig.store.stats().segments).to.be.below(before);
    await rig.kill();
    expect(await rig.drain()).to.deep.equal([...left]);
  });

  it("a full store drops whole parts of a backlog, and of what is fresh behind it, but not what is in flight", async () => {
    const rig = await new Rig({ maxBytes: 2 * 1024 * 1024, segmentBytes: 65_536 }).open();
    rig.store.configured();
    const filler = "x".repeat(4000);
    let puts = 0;
    const put = async (name: string): Promise<void> => {
      for (let waits = 0; rig.store.crowded; waits += 1) {
        if (waits % 50 === 49) rig.clock.advance(100);
        await turn();
      }
      puts += 1;
      await rig.put([`${name} ${filler}`]);
      const { messages, dropped } = rig.queue.stats();
      expect(messages + (dropped["store-full"] ?? 0), "counted to the message").to.equal(puts);
    };
    for (let count = 0; count < 200; count += 1) await put(`late${count}`);
    rig.linkUp(0.5);
    for (let count = 0; count < 100; count += 1) await put(`fresh${count}`);
    const out = await rig.take(20);
    let shares = 0;
    for (let count = 100; count < 800; count += 1) {
      await put(`fresh${count}`);
      if (shares > 0 || rig.queue.stats().dropped["store-full"] === undefined) continue;
      out.push(...(await rig.take(2)));
      for (let turns = 0; turns < 20; turns += 1) await turn(); // both are read ahead again
      const more = await rig.take(2);
      const kinds = more.map((next) => textOf(next).replace(/\d.*/s, "")).sort();
      expect(kinds, "they share the link still").to.deep.equal(["fresh", "late"]);
      out.push(...more);
      shares += 1;
    }
    const dropped = rig.queue.stats().dropped["store-full"]!;
    for (const one of out) rig.queue.settle(one);
    const got = (await rig.drain()).map((text) => text.split(" ")[0]!);
    expect(got.length + out.length + dropped).to.equal(1000);
    expect(got).to.deep.equal(named("fresh", got.length, 800 - got.length));
    expect(got.length).to.be.within(150, 500);
  });

  for (const of of ["late", "fresh"])
    it(`rot among what is ${of}, in the segment where they meet, costs one message and is counted`, async () => {
      const rig = await new Rig({ segmentBytes: 40_000 }).open();
      await rig.put(named("late", 20));
      rig.linkUp(0.5);
      await rig.put(named("fresh", 20));
      const filler = "x".repeat(30_000);
      for (let round = 0; round < 180; round += 1) await rig.put([`f${round} ${filler}`]); // out of what is in RAM
      for (const path of rig.files.paths().filter((path) => path.includes("seg-"))) {
        const content = Buffer.from(rig.files.content(path));
        const at = content.indexOf(`t/${of}7`);
        if (at >= 0) content[at + 3]! ^= 1;
        if (at >= 0) rig.files.replace(path, content);
      }
      const got = await rig.drain();
      expect(got.filter((text) => text.startsWith("f")).length).to.equal(200 - (of === "fresh" ? 1 : 0));
      expect(got.filter((text) => text.startsWith("late")).length).to.equal(20 - (of === "late" ? 1 : 0));
      expect(got).not.to.include(`${of}7`);
      expect(rig.queue.stats().dropped).to.deep.equal({ corrupt: 1 });
    });

  it("peek shows both, in the order in which they wait", async () => {
    const rig = await new Rig().open();
    await rig.put(named("late", 3));
    rig.linkUp(0.5);
    await rig.put(named("fresh", 3));
    await rig.take(2);
    const peeked = await rig.store.peekUplink("cloud", 10);
    expect(peeked?.messages.map((one) => [textOf(one), one.inFlight])).to.deep.equal([
      ...[
        ["late0", true],
        ["fresh0", true],
      ],
      ...[
        ["late1", false],
        ["late2", false],
        ["fresh1", false],
        ["fresh2", false],
      ],
    ]);
    expect(peeked?.more).to.equal(false);
  });
});
