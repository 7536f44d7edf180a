import { expect } from "chai";
import type { Store } from "../../../src/base/contracts.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "./support.ts";

const ours = Array.from({ length: 8 }, (_, index) => `message ${index}`);
const texts = ours;

/** A small store: eight messages in a lane, the even ones referenced as well, the first retained; two checkpoints if `checkpoints`. */
async function build(
  checkpoints: boolean,
  texts = ours,
): Promise<{ files: FaultyFiles; groupEnds: Map<string, number> }> {
  const files = new FaultyFiles();
  const clock = new TestClock();
  let store = await open(files.mount(), clock);
  const groupEnds = new Map<string, number>();
  for (const [index, text] of texts.entries()) {
    const lane = store.uplink("cloud", generous).lane(4);
    const { group } = store.commit((txn) => {
      const position = txn.message(message(text), [taker(lane, 1)]);
      if (index % 2 === 0) txn.reference("queue", position, index);
      if (index === 0) txn.retain("topic", position);
    });
    await durable(store, group);
    if (checkpoints && index % 3 === 2) {
      await store.close();
      store = await open(files.mount(), clock);
    }
    const newest = files
      .paths()
      .filter((path) => path.includes("seg-"))
      .at(-1)!;
    groupEnds.set(text, files.content(newest).length);
  }
  // A group that follows proves the last one.
  clock.advance(1000);
  clock.advance(1000);
  for (let turns = 0; turns < 20; turns += 1) await turn();
  files.kill();
  return { files, groupEnds };
}

interface Found {
  lane: string[];
  queue: string[];
  retained: string[];
  store: Store;
}

async function inspect(files: FaultyFiles): Promise<Found> {
  const store = await open(files.mount(), new TestClock());
  const queue = store.uplink("cloud", generous);
  const lane: string[] = [];
  // What cannot be read is found missing when its segment was read to the end.
  await until(() => {
    for (let next = queue.next(); next !== undefined; next = queue.next()) lane.push(textOf(next));
    return queue.stats().messages === lane.length;
  });
  const references = (await store.references("queue")?.read(0, { messages: 100, bytes: 1e6 })) ?? [];
  const retained: string[] = [];
  for (const [, position] of store.retained()) {
    const stored = await store.read(position);
    if (stored !== undefined) retained.push(textOf(stored));
  }
  return { lane, queue: references.map(textOf), retained, store };
}

const evens = texts.filter((_, index) => index % 2 === 0);

describe("journal: damage", () => {
  for (const checkpoints of [false, true]) {
    it(`a flipped bit anywhere costs one record at most (${checkpoints ? "with" : "without"} checkpoints)`, async function () {
      this.timeout(60_000);
      const { files } = await build(checkpoints);
      const whole = await inspect(files.clone());
      expect([whole.lane, whole.queue, whole.retained]).to.deep.equal([texts, evens, [texts[0]]]);
      for (const path of files.paths()) {
        const content = files.content(path);
        for (let at = 0; at < content.length; at += 1) {
          if (at >= 128 && at < 1024 && (at < 512 || at >= 640) && at % 64 !== 0) continue; // the header's zeros
          const copy = files.clone();
          const flipped = Buffer.from(content);
          flipped[at] = flipped[at]! ^ (1 << (at % 8));
          copy.replace(path, flipped);
          const { lane, queue, retained, store } = await inspect(copy);
          const where = `${path} at ${at}`;
          const lost = texts.filter((text) => !lane.includes(text)).length;
          expect(lane, where).to.deep.equal(texts.filter((text) => lane.includes(text)));
          expect(lost, where).to.be.at.most(1);
          expect(queue.length, where).to.be.at.least(evens.length - 1);
          // One record may be the message, its reference or the retained statement, never two of different messages.
          const missing = new Set([
            ...texts.filter((text) => !lane.includes(text)),
            ...evens.filter((text) => !queue.includes(text)),
            ...(retained.length === 0 ? [texts[0]!] : []),
          ]);
          expect(missing.size, where).to.be.at.most(1);
          expect(store.failed, where).to.equal(undefined);
        }
      }
    });
  }

  it("a file cut anywhere: the store opens, with every group before the cut", async function () {
    this.timeout(60_000);
    const { files, groupEnds } = await build(false);
    const [path] = files.paths().filter((name) => name.includes("seg-"));
    const content = files.content(path!);
    for (let size = 0; size < content.length; size += size < 1000 ? 50 : 1) {
      const copy = files.clone();
      copy.replace(path!, content.subarray(0, size));
      const { lane } = await inspect(copy);
      expect(lane, `cut at ${size}`).to.deep.equal(texts.filter((text) => groupEnds.get(text)! <= size));
    }
  });

  it("a segment missing in the middle is reported, the rest goes on, and it can be written to", async () => {
    const files = new FaultyFiles();
    let store = await open(files.mount(), new TestClock(), { segmentBytes: 1500 });
    for (const text of texts) {
      const lane = store.uplink("cloud", generous).lane(4);
      const filler = message(text, { properties: { contentType: "x".repeat(600) } });
      await durable(store, store.commit((txn) => txn.message(filler, [taker(lane, 1)])).group);
    }
    await store.close();
    const segments = files.paths().filter((path) => path.includes("seg-"));
    files.remove(segments[2]!);
    files.replace(segments[4]!, Buffer.alloc(0));
    const found = await inspect(files);
    ({ store } = found);
    expect(found.lane.length).to.be.within(texts.length - 6, texts.length - 2);
    expect(store.stats().recovery.corruptRecords).to.be.at.least(1);
    const { group } = store.commit((txn) => txn.put("m", "k", Buffer.from("v")));
    await durable(store, group);
    await store.close();
    expect((await inspect(files)).lane).to.deep.equal(found.lane);
  });

  it("without any checkpoint, and with bytes of another store in a recycled file, only its own records count", async () => {
    const { files } = await build(true);
    for (const path of files.paths()) if (path.includes("ckpt-")) files.replace(path, Buffer.alloc(3000, 0x5a));
    const foreign = await build(
      true,
      ours.map((text) => `not ${text}`),
    );
    const segments = files.paths().filter((path) => path.includes("seg-"));
    const newest = segments.at(-1)!;
    const sameNumber = foreign.files.paths().filter((path) => path.includes("seg-"));
    // What a recycled file may hold after its end: older records of this store, and of another.
    const stale = [files.content(segments[0]!), ...sameNumber.map((path) => foreign.files.content(path))];
    const older = segments[1]!;
    const theirsOfSame = foreign.files.content(older).subarray(1024);
    files.replace(newest, Buffer.concat([files.content(newest), ...stale.map((bytes) => bytes.subarray(1024))]));
    files.replace(older, Buffer.concat([files.content(older), theirsOfSame]));
    files.replace("/data/seg-000000000900.log", foreign.files.content(sameNumber[0]!));
    const { lane, queue, store } = await inspect(files);
    expect(store.uplink("cloud", generous).stats().dropped).to.deep.equal({});
    expect(store.stats().recovery.corruptRecords, "two checkpoints").to.equal(2);
    expect(lane).to.deep.equal(texts);
    expect(queue).to.deep.equal(evens);
    expect(files.paths()).to.include("/data/seg-000000000900.log");
    await until(() => store.failed === undefined);
  });
});
