import { expect } from "chai";
import type { Store, Taker } from "../../../src/base/contracts.ts";
import type { Message, PlainMessage } from "../../../src/base/message.ts";
import { dataViewOf } from "../../../src/journal/bytes.ts";
import { headerBytes, recordHeaderBytes, recordType } from "../../../src/journal/format.ts";
import { MessageReader } from "../../../src/journal/messageRecord.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, randomOf, TestClock, taker, textOf } from "./support.ts";

/** As it lies in a chunk that a client sent. */
function plainOf({ topic, source, qos, payload }: Message): PlainMessage {
  const chunk = Buffer.concat([Buffer.alloc(7, 1), payload, Buffer.alloc(5, 2)]);
  return { topic, source, qos, bytes: dataViewOf(chunk.subarray(3)), from: 4, to: 4 + payload.length };
}

/** The fields of each MESSAGE on the disk, but for where it lies. */
function records(files: FaultyFiles): string[] {
  const found: string[] = [];
  for (const path of files.paths().filter((name) => name.endsWith(".log"))) {
    const content = Buffer.from(files.content(path));
    for (let at = headerBytes; at + recordHeaderBytes < content.length; ) {
      const length = content.readUInt32LE(at);
      if (length === 0) break;
      if (content[at + 8] === recordType.message) {
        const reader = new MessageReader();
        reader.start(content, at + recordHeaderBytes, at + length, content[at + 9]!);
        const { position, ...rest } = { ...reader.stored() };
        expect(position).to.be.above(0);
        found.push(
          `${length} ${content[at + 9]} ${JSON.stringify(rest)} ${content.toString("hex", at + 20, at + length)}`,
        );
      }
      at += length;
    }
  }
  return found;
}

describe("journal: a message appended alone", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store;

  beforeEach(async () => {
    files = new FaultyFiles();
    clock = new TestClock();
    store = await open(files.mount(), clock);
  });

  afterEach(() => store.close());

  const append = (of: Message, takers: readonly Taker[]): number => store.append(plainOf(of), takers, store.nowMs());
  const commit = (of: Message, takers: readonly Taker[]): number =>
    store.commit((txn) => txn.message(of, takers)).group;

  it("is byte for byte what a commit of it writes, and counts the same", async () => {
    const written: unknown[] = [];
    for (const write of [append, commit]) {
      await store.close();
      files = new FaultyFiles();
      clock = new TestClock();
      store = await open(files.mount(), clock);
      const [queue, other] = [store.uplink("cloud", generous), store.uplink("other", generous)];
      const takers = [taker(queue.lane(3)), taker(queue.lane(7), 2), taker(other.lane(0), 3, 5000)];
      const random = randomOf(5);
      let group = 0;
      for (let number = 0; number < 200; number += 1) {
        const length = Math.floor(random() ** 3 * 3000);
        const topic = random() < 0.7 ? "plant/1" : `plänt/${number % 3}`;
        const some = takers.filter(() => random() < 0.6);
        if (random() < 0.1) clock.advance(1);
        group = write(message("x".repeat(length), { topic, qos: number % 2 === 0 ? 1 : 0 }), some);
      }
      await durable(store, group);
      written.push({ records: records(files), stats: [queue.stats(), other.stats()], group, head: store.head });
    }
    expect((written[0] as { records: string[] }).records).to.have.length(200);
    expect(written[0]).to.deep.equal(written[1]);
  });

  it("what it throws leaves no trace: the next one has the next number", async () => {
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(3);
    await durable(store, append(message("one"), [taker(lane)]));
    const { head } = store;
    expect(() => append(message("lost"), [taker(lane), taker(99)])).to.throw("lane 99");
    expect(() => append(message("x".repeat(1024 * 1024 + 1)), [taker(lane)])).to.throw("exceeds maxMessageBytes");
    expect(() => store.commit(() => append(message("inner"), [taker(lane)]))).to.throw("commit inside a commit");
    expect([store.head, queue.stats().messages]).to.deep.equal([head, 1]);
    await durable(store, append(message("two"), [taker(lane)]));
    const got = [];
    for (let one = queue.next(); one !== undefined; one = queue.next()) got.push([one.seq, textOf(one)]);
    expect(got).to.deep.equal([
      [1, "one"],
      [2, "two"],
    ]);
  });

  it("a large one has a segment for itself, as with a commit", async () => {
    await store.close();
    files = new FaultyFiles();
    store = await open(files.mount(), clock, { tuning: { spares: 0, largeRecordBytes: 10_000 } });
    const queue = store.uplink("cloud", generous);
    const takers = [taker(queue.lane(3))];
    append(message("small"), takers);
    const before = files.paths().filter((name) => name.endsWith(".log")).length;
    append(message("x".repeat(20_000)), takers);
    const group = append(message("after"), takers);
    await durable(store, group);
    expect(files.paths().filter((name) => name.endsWith(".log")).length).to.equal(before + 2);
    expect(queue.stats().messages).to.equal(3);
  });

  it("what fits up to `admittedTo` is admitted, until nothing is", async () => {
    await store.close();
    files = new FaultyFiles();
    store = await open(files.mount(), clock, { maxBytes: 4 * 1024 * 1024 });
    const reject = { ...generous, whenFull: "reject-newest" } as const;
    const uplinks = [store.uplink("cloud", { ...reject, maxBytes: 900_000 }), store.uplink("other", reject)];
    store.configured();
    const random = randomOf(3);
    const to = [0, 0];
    let sure = 0;
    for (let number = 0; number < 3000; number += 1) {
      const at = number % 10 === 0 ? 0 : number % 10 === 1 ? 1 : Math.floor(random() * 2);
      const rejectNewest = [["cloud", "other"][at]!];
      const bytes = 1 + Math.floor(random() * 4000);
      // Asked before ten that come at once.
      if (number % 10 < 2) to[at] = store.admittedTo(rejectNewest);
      const fits = store.head + bytes <= to[at]!;
      const verdict = store.admit({ bytes, rejectNewest, tentative: true });
      if (fits) {
        expect(verdict).to.equal("ok");
        sure += 1;
      }
      if (verdict === "ok") append(message("x".repeat(bytes)), [taker(uplinks[at]!.lane(0))]);
      if (number % 10 === 9) await durable(store, commit(message("y"), []));
    }
    expect(sure).to.be.above(500);
    expect(store.admit({ bytes: 4000, rejectNewest: ["cloud"] })).to.equal("full");
    expect(store.stats().refused).to.equal(1); // of all that were asked only the one that was not tentative
  });
});
