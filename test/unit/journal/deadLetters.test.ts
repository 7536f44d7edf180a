import { expect } from "chai";
import { TidegateError } from "../../../src/base/errors.ts";
import type { Message } from "../../../src/base/message.ts";
import { openLetter } from "../../../src/journal/letterRecord.ts";
import { dayMs, failure, LetterRig, ruleText } from "./letterRig.ts";
import { message, open, until } from "./support.ts";

const dropped = (rig: LetterRig, reason: string): number =>
  rig.metric(`tidegate_dead_letters_dropped_total\\{reason="${reason}"\\}`);

describe("journal: dead letters", () => {
  let rig: LetterRig;
  afterEach(() => rig.close());

  const messages: Array<[string, Partial<Message>]> = [
    ["plain", {}],
    ["empty properties", { properties: {} }],
    ["properties without user properties", { properties: { contentType: "a/b", messageExpirySeconds: 9 } }],
    ["no user property", { properties: { userProperties: [] } }],
    [
      "everything",
      {
        retain: true,
        qos: 2,
        source: "mqtt:élan",
        topic: "t/ü/1",
        properties: {
          payloadFormat: 1,
          contentType: "text/plain",
          responseTopic: "r/1",
          correlationData: Buffer.from([0, 255]),
          userProperties: [
            ["a", "b"],
            ["a", ""],
            ["tidegate-letter", "{}"],
          ],
        },
      },
    ],
  ];
  for (const [what, more] of messages) {
    it(`keep the message as it was, and what is known of its failure, over a restart: ${what}`, async () => {
      rig = await LetterRig.open();
      await rig.put("hello", { ...more, priority: 4 });
      const takenMs = rig.clock.wallMs();
      await rig.passMs(5000);
      const queued = await rig.bury({ attempts: 3 });
      const expected = {
        id: 1,
        from: { kind: "uplink", name: "cloud", rule: ruleText, priority: 4, seq: queued.seq },
        ...{ code: "0x87", text: "the cloud refused it: not authorized", attempts: 3, firstMs: 1000, lastMs: 2000 },
        ...{ takenMs, bytes: 5, topic: queued.message.topic, source: queued.message.source },
      };
      for (const how of ["now", "stop", "kill"] as const) {
        if (how === "kill") await rig.settle();
        if (how !== "now") await rig.restart(how);
        const [letter, ...others] = await rig.read();
        expect(others).to.deep.equal([]);
        expect(letter).to.deep.include(expected);
        expect(letter?.message).to.deep.equal({ ...message("hello", more), payload: Buffer.from("hello") });
        expect(rig.queue.stats()).to.deep.include({ messages: 0, dropped: { "dead-letter": 1 } });
      }
    });
  }

  it("show of a record that a later version wrote what they can", () => {
    const stored = { position: 5, acceptedAtMs: 7, wallMs: 9, message: message("x") };
    const letter = openLetter(3, stored);
    expect(letter).to.deep.include({ id: 3, code: "unreadable", from: { kind: "unknown", name: "" }, takenMs: 9 });
    const odd = {
      ...message("x"),
      properties: { userProperties: [["\u0000tidegate-letter", '{"from":{"kind":"new"}}']] },
    } as Message;
    expect(openLetter(3, { ...stored, message: odd }).message.properties).to.deep.equal({ userProperties: [] });
    rig = { close: async () => undefined } as LetterRig;
  });

  it("are kept by a cap on their number, the oldest going first, counted", async () => {
    rig = await LetterRig.open({ maxMessages: 3 });
    for (let n = 1; n <= 5; n += 1) {
      await rig.put(String(n));
      await rig.bury();
    }
    expect(await rig.texts()).to.deep.equal(["3", "4", "5"]);
    expect(dropped(rig, "full")).to.equal(2);
    expect(rig.desk.stats()).to.deep.include({ messages: 3, dropped: { full: 2 } });
    await rig.settle();
    await rig.restart("kill");
    expect((await rig.read()).map(({ id }) => id)).to.deep.equal([3, 4, 5]);
    rig.limits = { ...rig.limits, maxMessages: 1 }; // lowered: also what is there already
    await rig.restart("stop");
    rig.clock.advance(0);
    await until(() => rig.desk.stats().messages === 1, "swept");
    expect(await rig.texts()).to.deep.equal(["5"]);
  });

  it("are kept by a cap on their bytes, and one larger than that not at all", async () => {
    rig = await LetterRig.open({ maxBytes: 20_000 });
    for (let n = 1; n <= 6; n += 1) {
      await rig.put(`${n}`.padEnd(6000));
      await rig.bury();
    }
    expect((await rig.texts()).map((text) => text.trim())).to.deep.equal(["4", "5", "6"]);
    expect(rig.desk.stats().bytes).to.be.within(18_000, 20_000);
    await rig.put("large".padEnd(21_000));
    expect(rig.letters.keep(await rig.next(), "cloud", ruleText, failure())).to.equal("off");
    expect(dropped(rig, "too-large")).to.equal(1);
    expect(rig.queue.stats().messages).to.equal(1); // the caller says what becomes of it
  });

  it("go when they are too old, by the store's clock, over a restart", async () => {
    rig = await LetterRig.open({ maxAgeMs: 10 * dayMs });
    for (let n = 1; n <= 3; n += 1) {
      await rig.put(String(n));
      await rig.bury();
      await rig.passMs(4 * dayMs);
    }
    await rig.passMs(10_000);
    expect(await rig.texts()).to.deep.equal(["2", "3"]);
    await rig.restart("stop");
    await rig.passMs(4 * dayMs);
    await rig.passMs(10_000);
    expect(await rig.texts()).to.deep.equal(["3"]);
    expect(dropped(rig, "expired")).to.equal(1);
  });

  it("are not kept where the config says so, which is counted", async () => {
    for (const off of [{ maxMessages: 0 }, { maxBytes: 0 }]) {
      rig = await LetterRig.open(off);
      await rig.put("x");
      expect(rig.letters.keep(await rig.next(), "cloud", ruleText, failure())).to.equal("off");
      expect(dropped(rig, "off")).to.equal(1);
      if (off.maxMessages === 0) await rig.close();
    }
  });

  it("wait while the store has no room, and nothing has happened to the message", async () => {
    rig = await LetterRig.open();
    await rig.put("x");
    const queued = await rig.next();
    rig.files.fault = (operation) => (operation === "write" || operation === "create" ? "ENOSPC" : undefined);
    rig.store.commit((txn) => txn.put("test", "x", new Uint8Array(0)));
    await until(() => rig.store.admit({ bytes: 1, rejectNewest: [] }) === "full", "full");
    expect(rig.letters.keep(queued, "cloud", ruleText, failure())).to.equal("later");
    expect([rig.queue.stats().messages, rig.desk.stats().messages]).to.deep.equal([1, 0]);
    rig.files.fault = () => undefined;
    await rig.passMs(2000);
    expect(rig.letters.keep(queued, "cloud", ruleText, failure())).to.equal("kept");
    expect([rig.queue.stats().messages, rig.desk.stats().messages]).to.deep.equal([0, 1]);
  });

  it("take, and give back, a message that is larger than what is accepted by now", async () => {
    rig = await LetterRig.open();
    const large = "x".repeat(2000);
    await rig.put(large);
    rig.storeOptions = { maxMessageBytes: 1000 };
    await rig.restart("stop");
    await rig.bury();
    expect(await rig.texts()).to.deep.equal([large]);
    expect(await rig.desk.retry(1)).to.include({ ok: true });
    expect(await rig.waiting()).to.deep.equal([large]);
  });

  it("say which came last, at once and after a restart, and when it went", async () => {
    rig = await LetterRig.open();
    for (const code of ["0x87", "0x99"]) {
      await rig.put(code);
      await rig.bury({ code });
    }
    expect(rig.desk.stats().newest).to.include({ id: 2, code: "0x99" });
    await rig.restart("stop");
    rig.clock.advance(0);
    await until(() => rig.desk.stats().newest !== undefined, "newest");
    expect(rig.desk.stats().newest).to.include({ id: 2, code: "0x99", lastMs: 2000 });
    await rig.desk.purge(2);
    await until(() => rig.desk.stats().newest?.id === 1, "the one before");
    await rig.desk.purge(1);
    expect(rig.desk.stats()).to.deep.include({ messages: 0, newest: undefined });
  });

  it("come of routes in the commit of the publish, and not at all when that fails", async () => {
    rig = await LetterRig.open();
    const bad = { route: "meters", code: "decode", text: "too short", message: message("{", { topic: "raw/x" }) };
    rig.store.commit((txn) => rig.letters.routes.keep(txn, bad));
    expect(() =>
      rig.store.commit((txn) => {
        rig.letters.routes.keep(txn, bad);
        throw new Error("no");
      }),
    ).to.throw("no");
    const [letter, ...others] = await rig.read();
    expect(others).to.deep.equal([]);
    expect(letter).to.deep.include({ from: { kind: "route", name: "meters" }, code: "decode", topic: "raw/x" });
    await rig.restart("stop");
    expect(await rig.texts()).to.deep.equal(["{"]);
  });

  it("survive merging and checkpoints, with the segments around them given back", async () => {
    rig = await LetterRig.open();
    for (let n = 0; n < 300; n += 1) {
      await rig.put(`${n} `.padEnd(1000));
      if (n % 30 === 0) await rig.bury();
      else rig.queue.settle(await rig.next());
    }
    for (let round = 0; round < 20; round += 1) await rig.passMs(11_000);
    expect(rig.store.stats().segments).to.be.below(8);
    const expected = Array.from({ length: 10 }, (_, at) => `${at * 30} `.padEnd(1000));
    expect(await rig.texts()).to.deep.equal(expected);
    await rig.restart("kill");
    expect(await rig.texts()).to.deep.equal(expected);
  });
});

describe("journal: what people do with dead letters", () => {
  let rig: LetterRig;
  afterEach(() => rig.close());
  const signal = new AbortController().signal;

  const buried = async (...texts: string[]): Promise<void> => {
    for (const text of texts) {
      await rig.put(text, { priority: 3, topic: `t/${text}` });
      await rig.bury({ code: text.startsWith("q") ? "0x97" : "0x87" });
    }
  };

  it("retry: back into its queue with the same topic, rule and priority, a new number, and the time it was taken", async () => {
    rig = await LetterRig.open();
    await rig.put("x", { priority: 7, retain: true, properties: { userProperties: [["a", "b"]] } });
    const takenMs = rig.clock.wallMs();
    await rig.passMs(3000);
    const before = await rig.bury({ attempts: 2 });
    expect(await rig.desk.retry(1)).to.include({ ok: true });
    expect(rig.desk.stats().messages).to.equal(0);
    const after = await rig.next();
    expect(after).to.deep.include({ priority: 7, rule: before.rule, wallMs: takenMs, message: before.message });
    expect(after.seq).to.be.above(before.seq);
    // Refused again: the count goes on, and so does the first time.
    const kept = rig.letters.keep(after, "cloud", ruleText, failure({ attempts: 3, firstMs: 5000, lastMs: 6000 }));
    expect(kept).to.equal("kept");
    const [letter] = await rig.read();
    expect(letter).to.include({ id: 2, attempts: 5, firstMs: 1000, lastMs: 6000, takenMs });
    expect([...rig.store.entries("dead-letters-retried")]).to.deep.equal([]);
  });

  it("retry: the count survives a restart, and goes when the cloud took it", async () => {
    rig = await LetterRig.open();
    await buried("x", "y");
    await rig.desk.retry(1);
    await rig.desk.retry(2);
    await rig.restart("kill");
    const [x, y] = [await rig.next(), await rig.next()];
    rig.letters.keep(x, "cloud", ruleText, failure({ attempts: 4 }));
    expect((await rig.read())[0]).to.include({ attempts: 5 });
    rig.queue.settle(y);
    rig.letters.acknowledged(y.position);
    await rig.passMs(1000);
    expect([...rig.store.entries("dead-letters-retried")]).to.deep.equal([]);
  });

  it("retry: not for an uplink that is gone, nor for what has expired; the letter stays", async () => {
    rig = await LetterRig.open();
    await rig.put("short", { properties: { messageExpirySeconds: 60 } });
    await rig.put("long", { properties: { messageExpirySeconds: 6000 } });
    await rig.bury();
    await rig.bury();
    await rig.put("elsewhere");
    expect(rig.letters.keep(await rig.next(), "gone", ruleText, failure())).to.equal("kept");
    await rig.passMs(100_000);
    expect(await rig.desk.retry(1)).to.deep.equal({
      ok: false,
      code: "expired",
      message: "its message expiry has passed",
    });
    expect(await rig.desk.retry(3)).to.include({ ok: false, code: "no_uplink" });
    expect(await rig.desk.retry(4)).to.equal(undefined);
    expect(await rig.desk.retry(2)).to.include({ ok: true });
    expect((await rig.next()).message.properties).to.deep.equal({ messageExpirySeconds: 5900 });
    expect(await rig.texts()).to.deep.equal(["short", "elsewhere"]);
  });

  it("retry: a letter of a route goes through the route again, and stays when it fails again", async () => {
    rig = await LetterRig.open();
    const bad = { route: "meters", code: "decode", text: "too short", message: message("{") };
    rig.store.commit((txn) => rig.letters.routes.keep(txn, bad));
    expect(await rig.desk.retry(1)).to.deep.equal({ ok: false, code: "no_route", message: "no such route" });
    const seen: Array<[string, Message]> = [];
    rig.again = (route, whole) => {
      seen.push([route, whole]);
      return { ok: true, group: 0 };
    };
    expect(await rig.desk.retry(1)).to.include({ ok: true });
    expect(seen[0]?.[0]).to.equal("meters");
    expect(seen[0]?.[1]).to.deep.equal({ ...bad.message, payload: Buffer.from("{") });
    expect(rig.desk.stats().messages).to.equal(0);
  });

  it("retry: a letter of a route goes with what is left of its message expiry, and not at all when nothing is", async () => {
    rig = await LetterRig.open();
    const command = message("open the door", { properties: { messageExpirySeconds: 60 } });
    const bad = { route: "commands", code: "decode", text: "no such codec then", message: command };
    rig.store.commit((txn) => rig.letters.routes.keep(txn, bad));
    rig.store.commit((txn) => rig.letters.routes.keep(txn, bad));
    const seen: Message[] = [];
    rig.again = (_, whole) => {
      seen.push(whole);
      return { ok: true, group: 0 };
    };
    await rig.passMs(20_000);
    expect(await rig.desk.retry(1)).to.include({ ok: true });
    await rig.passMs(50_000);
    expect(await rig.desk.retry(2)).to.include({ ok: false, code: "expired" });
    expect(seen.map(({ properties }) => properties)).to.deep.equal([{ messageExpirySeconds: 40 }]);
    expect(await rig.texts()).to.deep.equal(["open the door"]);
  });

  it("retry: two at once send it once", async () => {
    rig = await LetterRig.open();
    await buried("x");
    const results = await Promise.all([rig.desk.retry(1), rig.desk.retry(1)]);
    expect(results.filter((result) => result?.ok === true)).to.have.length(1);
    expect(await rig.waiting()).to.deep.equal(["x"]);
  });

  it("retry all, by filter: in order, once each, though they are refused again meanwhile", async () => {
    rig = await LetterRig.open();
    await buried(...Array.from({ length: 150 }, (_, n) => `${n % 3 === 0 ? "q" : "a"}${n}`));
    const retried = await rig.desk.retryAll({ reason: "0X97" }, signal);
    expect(retried).to.deep.equal({ retried: 50, kept: [], keptCount: 0 });
    expect(rig.desk.stats().messages).to.equal(100);
    expect((await rig.waiting())[1]).to.equal("q3");
    for (let n = 0; n < 50; n += 1) await rig.bury();
    const all = await rig.desk.retryAll({}, signal);
    expect(all.retried).to.equal(150);
    expect(rig.desk.stats().messages).to.equal(0);
    expect(await rig.waiting()).to.have.length(150);
  });

  it("retry all: says of the first hundred why they stay", async () => {
    rig = await LetterRig.open();
    for (let n = 0; n < 103; n += 1) {
      await rig.put(String(n));
      rig.letters.keep(await rig.next(), "gone", ruleText, failure());
    }
    const { retried, kept, keptCount } = await rig.desk.retryAll({ uplink: "gone" }, signal);
    expect([retried, kept.length, keptCount]).to.deep.equal([0, 100, 103]);
    expect(kept[0]).to.deep.include({ id: 1, code: "no_uplink" });
  });

  it("purge: one, all of a kind, all; and stops when whoever asked went away", async () => {
    rig = await LetterRig.open();
    await buried("a1", "q1", "a2", "q2", "a3");
    expect([await rig.desk.purge(3), await rig.desk.purge(3)]).to.deep.equal([true, false]);
    expect(await rig.desk.purgeAll({ topic: "t/q1" }, signal)).to.equal(1);
    expect(await rig.desk.purgeAll({ reason: "0x97" }, signal)).to.equal(1);
    expect(await rig.texts()).to.deep.equal(["a1", "a3"]);
    expect(await rig.desk.purgeAll({}, AbortSignal.abort())).to.equal(0);
    expect(await rig.desk.purgeAll({ untilMs: 1999 }, signal)).to.equal(0);
    expect(await rig.desk.purgeAll({ untilMs: 2000 }, signal)).to.equal(2);
    await rig.restart("kill");
    expect(rig.desk.stats().messages).to.equal(0);
  });

  it("tells the ids of the newest, across holes", async () => {
    rig = await LetterRig.open();
    await buried(...Array.from({ length: 40 }, (_, n) => `a${n}`));
    expect(rig.desk.newestIds(3)).to.deep.equal([38, 39, 40]);
    for (let id = 3; id <= 38; id += 1) await rig.desk.purge(id);
    expect(rig.desk.newestIds(3)).to.deep.equal([2, 39, 40]);
    expect(rig.desk.newestIds(100)).to.deep.equal([1, 2, 39, 40]);
    expect(rig.desk.newestIds(0)).to.deep.equal([]);
  });

  it("a disk that fails: nothing is said to be done, and nothing is lost", async () => {
    rig = await LetterRig.open();
    await buried("x", "y");
    await rig.settle();
    rig.files.fault = (operation) => (operation === "datasync" || operation === "write" ? "EIO" : undefined);
    const refused = async (purged: Promise<unknown>): Promise<void> => {
      const failed = await purged.then(
        () => undefined,
        (error: unknown) => error,
      );
      expect(failed).to.be.instanceOf(TidegateError).and.have.property("code", "TG_STORE_FAILED");
    };
    await refused(rig.desk.purge(1));
    expect(await rig.desk.retry(1)).to.equal(undefined);
    await refused(rig.desk.purge(2));
    await refused(rig.desk.purgeAll({}, new AbortController().signal));
    expect(await rig.texts(), "what is refused is not done in memory either").to.deep.equal(["y"]);
    rig.files.fault = () => undefined;
    await rig.restart("kill");
    expect(await rig.texts()).to.deep.equal(["x", "y"]);
  });
});

describe("journal: peeking into an uplink's queue", () => {
  let rig: LetterRig;
  afterEach(() => rig.close());

  const peek = async (count: number, name = "cloud"): Promise<string[] | undefined> => {
    const peeked = await rig.store.peekUplink(name, count);
    return peeked?.messages.map((one) => `${Buffer.from(one.message.payload)}${one.inFlight ? "*" : ""}`);
  };

  it("shows the next ones by priority, takes none, and names what is in flight", async () => {
    rig = await LetterRig.open();
    for (const [text, priority] of [
      ["l1", 1],
      ["l2", 1],
      ["h1", 8],
      ["h2", 8],
    ] as const)
      await rig.put(text, { priority });
    expect(await peek(3)).to.deep.equal(["h1", "h2", "l1"]);
    expect((await rig.store.peekUplink("cloud", 3))?.more).to.equal(true);
    const taken = await rig.next();
    expect(await peek(10)).to.deep.equal(["h1*", "h2", "l1", "l2"]);
    expect((await rig.store.peekUplink("cloud", 10))?.more).to.equal(false);
    rig.queue.settle(taken);
    expect(await rig.waiting()).to.deep.equal(["h2", "l1", "l2"]);
    expect(await peek(1, "nobody")).to.equal(undefined);
  });

  it("reads from disk, also beside the uplink that reads, and for an uplink that nobody has", async () => {
    rig = await LetterRig.open();
    const texts = Array.from({ length: 80 }, (_, n) => `${n} `.padEnd(1000));
    for (const text of texts) await rig.put(text);
    await rig.restart("kill");
    const [first, second, all] = await Promise.all([peek(5), peek(2), rig.waiting()]);
    const bare = [first, second].map((some) => some?.map((text) => text.replace("*", ""))); // it may be in flight by now
    expect(bare).to.deep.equal([texts.slice(0, 5), texts.slice(0, 2)]);
    expect(all).to.deep.equal(texts);
    await rig.letters.close();
    await rig.store.close();
    rig.clock.forgetTimers();
    rig.store = await open(rig.files.mount(), rig.clock, { segmentBytes: 32_768 });
    rig.store.configured(); // without naming it
    expect(rig.store.stats().orphaned[0]).to.include({ name: "cloud", messages: 80 });
    expect(await peek(3)).to.deep.equal(texts.slice(0, 3));
    const { messages } = await rig.store.purgeUplink("cloud");
    expect(messages).to.equal(80);
    expect(await peek(3)).to.deep.equal([]);
  });
});
