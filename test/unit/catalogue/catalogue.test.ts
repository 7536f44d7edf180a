import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { expect } from "chai";
import type { Letter, LetterDesk } from "../../../src/base/deadLetters.ts";
import { TidegateError } from "../../../src/base/errors.ts";
import { Catalogue, catalogueMax, type LetterPage } from "../../../src/catalogue/catalogue.ts";
import { type LoggedLine, MovedClock, recordingLog } from "../../helpers/memoryUplink.ts";

/** The journal's letters, in RAM. */
class MemoryDesk {
  readonly letters = new Map<number, Letter>();
  reads = 0;
  failure: Error | undefined;
  #nextId = 1;

  add(more: Partial<Letter> = {}): number {
    const id = this.#nextId++;
    const message = {
      topic: "t/a",
      payload: Buffer.from("secret payload"),
      qos: 1,
      retain: false,
      source: "mqtt:a",
    } as const;
    const from = { kind: "uplink", name: "cloud", rule: "{}", priority: 0, seq: id } as const;
    const times = { takenMs: id, firstMs: id, lastMs: id * 1000 };
    const facts = { code: "0x87", text: "not authorized", attempts: 1, topic: "t/a", source: "mqtt:a", bytes: 14 };
    const properties = { userProperties: [["token", "secret property"]] as const };
    this.letters.set(id, { id, from, ...times, ...facts, message: { ...message, properties }, ...more });
    return id;
  }

  remove(id: number): void {
    this.letters.delete(id);
  }

  get desk(): LetterDesk {
    const desk: Partial<LetterDesk> = {
      stats: () => ({ messages: this.letters.size, bytes: 0, newest: undefined, dropped: {} }),
      newestIds: (count) => [...this.letters.keys()].slice(-count),
      read: async (after, { messages }) => {
        this.reads += 1;
        if (this.failure !== undefined) throw this.failure;
        return [...this.letters.values()].filter(({ id }) => id > after).slice(0, messages);
      },
    };
    return desk as LetterDesk;
  }
}

describe("catalogue of dead letters", () => {
  let dir: string;
  let desk: MemoryDesk;
  let clock: MovedClock;
  let lines: LoggedLine[];
  let catalogue: Catalogue;
  const file = (): string => join(dir, "catalogue", "dead-letters.db");

  const start = (epoch = 7): Catalogue => {
    catalogue = new Catalogue({ dir, epoch }, { letters: desk.desk, clock, log: recordingLog(lines) });
    return catalogue;
  };
  /** After a stop, or what is left of it. */
  const again = async (epoch = 7): Promise<Catalogue> => {
    await catalogue.close();
    desk.reads = 0;
    return start(epoch);
  };
  const ids = async (filter = {}, limit = 1000, before?: number): Promise<number[]> =>
    (await catalogue.find(filter, { limit, before })).letters.map(({ id }) => id);
  const warnings = (): string[] => lines.filter(({ level }) => level === "warn").map(({ message }) => message);

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-catalogue-"));
    desk = new MemoryDesk();
    clock = new MovedClock();
    lines = [];
  });
  afterEach(async () => {
    await catalogue.close();
    await chmod(dir, 0o700);
    await rm(dir, { recursive: true, force: true });
  });

  it("makes nothing while nobody asks, nor while there is nothing to show", async () => {
    start();
    expect(await catalogue.find({}, { limit: 5 })).to.deep.equal({
      ...{ letters: [], matching: 0, next: undefined, total: 0, catalogued: 0 },
    });
    desk.add();
    clock.advance(60_000);
    expect([await readdir(dir), desk.reads]).to.deep.equal([[], 0]);
    expect(await ids()).to.deep.equal([1]);
    expect((await stat(file())).mode & 0o777).to.equal(0o600);
  });

  it("leaves the RAM when nobody has asked for five minutes, and comes back from its file", async () => {
    for (let n = 0; n < 3; n += 1) desk.add();
    start();
    await ids();
    const whole = await readFile(file());
    const left = async (ms: number): Promise<number> => {
      desk.reads = 0;
      clock.advance(ms);
      await rm(file()); // only who has it in RAM does not miss it
      expect(await ids()).to.deep.equal([3, 2, 1]);
      await writeFile(file(), whole);
      return desk.reads;
    };
    expect(await left(299_999)).to.equal(0);
    expect(await left(299_999), "each question begins it anew").to.equal(0);
    expect(await left(300_000)).to.equal(1);
    desk.reads = 0;
    clock.advance(300_000);
    expect(await ids()).to.deep.equal([3, 2, 1]);
    expect([desk.reads, warnings()]).to.deep.equal([0, []]);
  });

  it("answers many at once, one after the other, and refuses more than 64", async () => {
    for (let n = 0; n < 10; n += 1) desk.add();
    start();
    const answers = await Promise.allSettled(Array.from({ length: 70 }, () => ids({ topic: "t/#" }, 3)));
    const given = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
    expect(given).to.deep.equal(Array.from({ length: 64 }, () => [10, 9, 8]));
    for (const answer of answers.slice(64)) expect(answer).to.have.nested.property("reason.code", "TG_STORE_READ");
    expect(await ids({}, 1)).to.deep.equal([10]);
  });

  it("keeps no more than the beginning of a long topic", async () => {
    const level = "\u00fc".repeat(300);
    desk.add({ topic: `${level}/${level}` });
    desk.add({ topic: "x".repeat(500) });
    start();
    const { letters } = await catalogue.find({}, { limit: 5 });
    expect(letters.map(({ topic }) => topic)).to.deep.equal(["x".repeat(500), `${level}/${"\u00fc".repeat(199)}…`]);
    expect(await ids({ topic: `${level}/#` })).to.deep.equal([1]);
    // As the first version wrote it: the whole topic.
    const { message: _, id: n, ...summary } = desk.letters.get(1) as Letter;
    const { from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes } = summary;
    const fields = { n, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes };
    const old = JSON.stringify({ _id: "1", ...fields, sum: crc32(JSON.stringify(fields)) });
    const lines = (await readFile(file(), "utf8")).split("\n").map((line) => (line.includes('"_id":"1"') ? old : line));
    await writeFile(file(), lines.join("\n"));
    await again();
    expect((await catalogue.find({}, { limit: 5 })).letters.at(-1)?.topic).to.have.lengthOf(501);
    expect(await readFile(file(), "utf8")).to.not.contain(topic);
    expect(await ids({ topic: `${level}/#` })).to.deep.equal([1]);
    expect([desk.reads, warnings()]).to.deep.equal([0, []]);
  });

  it("lists the newest first, page by page, with how many there are", async () => {
    for (let n = 0; n < 250; n += 1) desk.add(n % 2 === 0 ? { code: "0x99" } : {});
    start();
    const pages: LetterPage[] = [];
    for (let before: number | undefined; ; before = pages.at(-1)?.next) {
      pages.push(await catalogue.find({ reason: "0x99" }, { limit: 60, before }));
      if (pages.at(-1)?.next === undefined) break;
    }
    expect(pages.map(({ letters }) => letters.length)).to.deep.equal([60, 60, 5]);
    const all = pages.flatMap(({ letters }) => letters.map(({ id }) => id));
    expect(all).to.deep.equal(Array.from({ length: 125 }, (_, n) => 249 - 2 * n));
    expect(pages[0]).to.include({ matching: 125, total: 250, catalogued: 250 });
    expect(pages[0]?.letters[0]).to.deep.equal(
      (({ message: _, ...summary }: Letter) => summary)(desk.letters.get(249) as Letter),
    );
  });

  it("finds by uplink, route, reason, topic and time", async () => {
    desk.add({ topic: "plant/a/b", text: "Not authorized (tenant 5)" });
    desk.add({ topic: "$SYS/x", from: { kind: "route", name: "meters" }, code: "decode", text: "too short" });
    desk.add({ topic: "plant", from: { kind: "uplink", name: "two", rule: "", priority: 1, seq: 1 } });
    desk.add({ topic: "other", from: { kind: "unknown", name: "" }, text: "a.b" });
    start();
    expect(await ids({ uplink: "two" })).to.deep.equal([3]);
    expect(await ids({ uplink: "meters" })).to.deep.equal([]);
    expect(await ids({ route: "meters" })).to.deep.equal([2]);
    expect(await ids({ reason: "DECODE" })).to.deep.equal([2]);
    expect(await ids({ reason: "tenant 5" })).to.deep.equal([1]);
    expect(await ids({ reason: "a.b" })).to.deep.equal([4]); // no pattern
    expect(await ids({ topic: "plant/#" })).to.deep.equal([3, 1]);
    expect(await ids({ topic: "#" })).to.deep.equal([4, 3, 1]); // [MQTT-4.7.2-1]
    expect(await ids({ sinceMs: 2000, untilMs: 3000 })).to.deep.equal([3, 2]);
    expect(await ids({ uplink: "cloud", topic: "other" })).to.deep.equal([]);
  });

  it("shows at once what came and went, also over a restart, reading only what is new", async () => {
    start();
    for (let n = 0; n < 10; n += 1) desk.add();
    expect(await ids()).to.have.length(10);
    desk.remove(4);
    desk.add();
    expect(await ids()).to.deep.equal([11, 10, 9, 8, 7, 6, 5, 3, 2, 1]);
    await again();
    desk.remove(1);
    desk.add();
    expect(await ids()).to.deep.equal([12, 11, 10, 9, 8, 7, 6, 5, 3, 2]);
    expect(desk.reads).to.equal(1);
    expect(warnings()).to.deep.equal([]);
  });

  it("holds no payload and no property", async () => {
    desk.add();
    start();
    await ids();
    await catalogue.close();
    for (const name of await readdir(join(dir, "catalogue")))
      expect(await readFile(join(dir, "catalogue", name), "utf8")).to.not.contain("secret");
  });

  const expected = [3, 2, 1];
  const filled = async (): Promise<Buffer> => {
    for (let n = 0; n < 3; n += 1) desk.add();
    start();
    await ids();
    await catalogue.close();
    return readFile(file());
  };

  it("is made anew when its file is gone", async () => {
    await filled();
    await rm(join(dir, "catalogue"), { recursive: true });
    await again();
    expect(await ids()).to.deep.equal(expected);
    expect(warnings()).to.deep.equal([]);
  });

  for (const [what, damage] of [
    ["a torn last line", (whole: Buffer) => whole.subarray(0, -10)],
    ["nothing but a torn line", (whole: Buffer) => whole.subarray(0, 20)],
    ["zeros in the middle", (whole: Buffer) => Buffer.from(whole).fill(0, 100, 160)],
    ["a changed digit", (whole: Buffer) => Buffer.from(whole.toString().replace('"lastMs":2000', '"lastMs":2001'))],
    ["something else", () => Buffer.from("not ours\n")],
    ["documents of somebody else", () => Buffer.from('{"_id":"1","n":1}\n')],
  ] as const) {
    it(`is made anew, the damaged file put aside: ${what}`, async () => {
      const bytes = damage(await filled());
      await writeFile(file(), bytes);
      await again();
      expect(await ids()).to.deep.equal(expected);
      expect(warnings()).to.deep.equal(["the catalogue of dead letters is damaged; it is made anew from the journal"]);
      expect(await readFile(`${file()}.damaged`)).to.deep.equal(bytes);
      await again(); // it is whole again
      lines.length = 0;
      expect(await ids()).to.deep.equal(expected);
      expect([warnings(), desk.reads]).to.deep.equal([[], 0]);
    });
  }

  it("finds any single changed byte: no letter is shown that is not as the journal has it", async () => {
    const whole = await filled();
    for (let at = 0; at < whole.length; at += 7) {
      const changed = Buffer.from(whole);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await writeFile(file(), changed);
      await again();
      const { letters } = await catalogue.find({}, { limit: 10 });
      const known = [...desk.letters.values()].reverse().map(({ message: _, ...summary }) => summary);
      expect(letters, `byte ${at}`).to.deep.equal(known);
    }
  });

  it("is made anew for another store, or one that was restored", async () => {
    await filled();
    await again(8);
    expect(await ids()).to.deep.equal(expected);
    expect([desk.reads, warnings()]).to.deep.equal([1, []]);
  });

  it("takes no file of NeDB's that a crash left for the real one", async () => {
    await filled();
    await rm(file());
    await writeFile(`${file()}~`, '{"_id":"9","n":9}\n');
    await again();
    expect(await ids()).to.deep.equal(expected);
  });

  it("is kept in memory, with a warning, where its folder cannot be used", async () => {
    await writeFile(join(dir, "catalogue"), "a file where the folder should be");
    desk.add();
    start();
    expect(await ids()).to.deep.equal([1]);
    desk.add();
    desk.remove(1);
    expect(await ids()).to.deep.equal([2]);
    expect(warnings()).to.deep.equal(["the catalogue of dead letters is kept in memory: its file cannot be used"]);
  });

  it("goes on in memory when its file cannot be written any more", async () => {
    desk.add();
    start();
    expect(await ids()).to.deep.equal([1]);
    await rm(join(dir, "catalogue"), { recursive: true });
    await writeFile(join(dir, "catalogue"), "");
    desk.add();
    expect(await ids()).to.deep.equal([2, 1]);
    expect(warnings()).to.deep.equal(["the catalogue of dead letters cannot be written; it is kept in memory"]);
  });

  it("says so when the journal cannot be read now, and goes on later", async () => {
    desk.add();
    desk.failure = new TidegateError("TG_STORE_READ", "no descriptors");
    start();
    const error = await ids().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).to.have.property("code", "TG_STORE_READ");
    desk.failure = undefined;
    expect(await ids()).to.deep.equal([1]);
  });

  it("has ten thousand documents at most, the newest", async function () {
    this.timeout(60_000);
    for (let n = 0; n < catalogueMax + 50; n += 1) desk.add();
    start();
    let turns = 0;
    const turn = (): void => {
      turns += 1;
      next = setImmediate(turn);
    };
    let next = setImmediate(turn);
    /** How many turns of the event loop others had meanwhile. */
    const turnsOf = async (work: Promise<unknown>): Promise<number> => {
      turns = 0;
      await work;
      return turns;
    };
    const { letters, matching, total, catalogued } = await catalogue.find({}, { limit: 1 });
    expect(await turnsOf(catalogue.find({ reason: "none of this" }, { limit: 1 })), "searched").to.be.above(45);
    await again();
    expect(await turnsOf(catalogue.find({}, { limit: 1 })), "opened").to.be.above(150);
    clearImmediate(next);
    expect([matching, total, catalogued]).to.deep.equal([catalogueMax, catalogueMax + 50, catalogueMax]);
    expect(letters[0]?.id).to.equal(catalogueMax + 50);
    expect(await ids({}, 1000, 60)).to.deep.equal([59, 58, 57, 56, 55, 54, 53, 52, 51]);
  });

  it("its file does not grow with what passes through", async function () {
    this.timeout(60_000);
    start();
    for (let round = 0; round < 30; round += 1) {
      const from = desk.add();
      for (let n = 1; n < 200; n += 1) desk.add();
      await ids({}, 1);
      for (let id = from; id < from + 200; id += 1) desk.remove(id);
      await ids({}, 1);
    }
    const text = await readFile(file(), "utf8");
    expect(text.split("\n").length).to.be.below(2500);
  });
});
