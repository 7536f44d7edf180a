import { expect } from "chai";
import type { Store } from "../../../src/base/contracts.ts";
import type { Files } from "../../../src/base/files.ts";
import { ByteReader, dataViewOf } from "../../../src/journal/bytes.ts";
import {
  decodeHeader,
  headerBytes,
  recordHeaderBytes,
  recordType,
  sealRecord,
  seedOf,
  segmentMagic,
} from "../../../src/journal/format.ts";
import { IndexCollector, loadIndex } from "../../../src/journal/segmentIndex.ts";
import { SegmentReader } from "../../../src/journal/segmentReader.ts";
import { Segment } from "../../../src/journal/segments.ts";
import { Tail } from "../../../src/journal/tail.ts";
import { RecordWalker } from "../../../src/journal/walk.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, randomOf, TestClock, taker, textOf, turn, until } from "./support.ts";

const segmentBytes = 256 * 1024;
const rare = 150;
const total = 6000;

/** Several sealed segments: every message in lane 1 (dense), each 150th in lane 9 too (sparse). Killed, so that nothing of it is in RAM. */
async function build(files: FaultyFiles, clean = false): Promise<void> {
  const store = await open(files.mount(), new TestClock(), { segmentBytes });
  const queue = store.uplink("cloud", generous);
  const [dense, sparse] = [queue.lane(1), queue.lane(9)];
  let group = 0;
  for (let at = 0; at < total; at += 50) {
    group = store.commit((txn) => {
      for (let index = at; index < at + 50; index += 1) {
        const takers = index % rare === 0 ? [taker(dense), taker(sparse)] : [taker(dense)];
        txn.message(message(`${index} ${"x".repeat(100)}`), takers);
      }
    }).group;
    await durable(store, group);
  }
  if (clean) await store.close();
  files.kill();
}

/** What comes out, by priority, until nothing waits. */
async function drain(store: Store): Promise<{ dense: number[]; sparse: number[] }> {
  const out = { dense: [] as number[], sparse: [] as number[] };
  const queue = store.uplink("cloud", generous);
  await until(() => {
    for (let next = queue.next(); next !== undefined; next = queue.next()) {
      (next.priority === 9 ? out.sparse : out.dense).push(Number(textOf(next).split(" ")[0]));
      queue.settle(next);
    }
    return queue.stats().messages === 0;
  }, "all drained");
  return out;
}

const upTo = (count: number, step: number): number[] =>
  Array.from({ length: Math.ceil(count / step) }, (_, index) => index * step);

interface Found {
  path: string;
  at: number;
  length: number;
  seed: number;
}

/** Every index record of every segment, and what it takes to write it anew. */
const indexRecords = (files: FaultyFiles): Found[] => records(files, recordType.segmentIndex);
const messageRecords = (files: FaultyFiles): Found[] => records(files, recordType.message);

function records(files: FaultyFiles, type: number): Found[] {
  const found: Found[] = [];
  for (const path of files.paths().filter((name) => name.includes("seg-"))) {
    const content = files.content(path);
    const header = decodeHeader(segmentMagic, content);
    if (header === undefined || header === "newer") continue;
    const seed = seedOf(segmentMagic, header.storeId, header.number);
    const walker = new RecordWalker();
    walker.start(content, headerBytes, content.length, 0, seed);
    while (walker.step() === "record") {
      if (walker.type === type) found.push({ path, at: walker.at, length: walker.length, seed });
    }
  }
  return found;
}

/** Bytes read from segments, from the moment it is asked to count. */
function counting(files: Files): { files: Files; read: { bytes: number } } {
  const read = { bytes: 0 };
  return {
    read,
    files: {
      ...files,
      open: async (path, mode) => {
        const file = await files.open(path, mode);
        return {
          ...file,
          read: async (target, position) => {
            const count = await file.read(target, position);
            if (path.includes("seg-")) read.bytes += count;
            return count;
          },
        };
      },
    },
  };
}

describe("journal: the index at a segment's end", () => {
  it("a sparse lane is read record by record, a dense one whole; both complete and in order", async () => {
    const files = new FaultyFiles();
    await build(files, true); // so that the checkpoint says where each index lies
    expect(indexRecords(files).length, "two lanes in each sealed segment").to.be.at.least(4);
    const counted = counting(files.mount());
    const store = await open(counted.files, new TestClock());
    const queue = store.uplink("cloud", generous);
    counted.read.bytes = 0;
    const sparse: number[] = [];
    await until(() => {
      while (sparse.length < total / rare) {
        const next = queue.next();
        if (next === undefined) return false;
        sparse.push(Number(textOf(next).split(" ")[0]));
      }
      return true;
    }, "the sparse lane");
    expect(sparse).to.deep.equal(upTo(total, rare));
    // The newest segment was never full: it is searched for an index, then walked. The others cost a few kilobytes each.
    expect(counted.read.bytes).to.be.below(2 * segmentBytes);
    expect(store.stats().bytes).to.be.above(4 * segmentBytes - 50_000);
    queue.rewind();
    expect((await drain(store)).dense).to.deep.equal(upTo(total, 1));
    await store.close();
  });

  for (const [what, change] of [
    ["rotten", (record: Buffer) => record.writeUInt8(record[20]! ^ 1, 20)],
    // Checksum right, offsets wrong: a fault of the version that wrote it.
    ["wrong", (record: Buffer) => record.writeUInt8(record.at(-6)! ^ 1, record.length - 6)],
    ["short", (record: Buffer) => record.writeUInt8(0x80, record.length - 1)],
  ] as const) {
    it(`a ${what} index costs nothing but time`, async () => {
      const files = new FaultyFiles();
      await build(files);
      for (const { path, at, length, seed } of indexRecords(files)) {
        const content = Buffer.from(files.content(path));
        change(content.subarray(at, at + length));
        if (what !== "rotten") sealRecord(dataViewOf(content), at, length, seed);
        files.replace(path, content);
      }
      const store = await open(files.mount(), new TestClock());
      const out = await drain(store);
      expect(out).to.deep.equal({ dense: upTo(total, 1), sparse: upTo(total, rare) });
      expect(store.uplink("cloud", generous).stats().dropped).to.deep.equal({});
      await store.close();
    });
  }

  it("a record that rotted is counted lost once, in both of its lanes, and its segment is given back", async () => {
    const files = new FaultyFiles();
    await build(files);
    const store = await open(files.mount(), new TestClock());
    const [path] = files.paths().filter((name) => name.includes("seg-"));
    const content = Buffer.from(files.content(path!));
    const at = content.indexOf(`${rare * 3} xxx`) + 5;
    content[at] = content[at]! ^ 0x04;
    files.replace(path!, content); // after recovery, so that only reading finds it
    const out = await drain(store);
    const without = (numbers: number[]): number[] => numbers.filter((number) => number !== rare * 3);
    expect(out).to.deep.equal({ dense: without(upTo(total, 1)), sparse: without(upTo(total, rare)) });
    expect(store.uplink("cloud", generous).stats()).to.deep.include({ messages: 0, bytes: 0, dropped: { corrupt: 2 } });
    await store.close();
  });

  it("what was collected is what a list would hold, whatever was taken back", async () => {
    const random = randomOf(7);
    for (let round = 0; round < 5; round += 1) {
      const segment = new Segment({ number: 3, base: 5000, firstGroup: 1, prevEnd: 5000, seed: 99 });
      const collector = new IndexCollector();
      const lists = new Map<number, number[]>([1, 2, 300].map((lane) => [lane, []]));
      let position = 5000;
      for (let step = 0; step < 400; step += 1) {
        const lane = [1, 2, 300][Math.floor(random() * 3)]!;
        const list = lists.get(lane)!;
        if (random() < 0.2 && list.length > 0) {
          list.pop();
          collector.undo(segment, lane, 50);
        } else {
          position += 50 + Math.floor(random() ** 8 * 300_000);
          collector.add(segment, lane, position, 50);
          list.push(segment.offsetOf(position));
        }
      }
      const tail = new Tail(position + 50, 1e9);
      const bound = collector.bytes;
      collector.seal({ begin: (...of) => tail.begin(...of), finish: () => tail.finish() }, tail.end, segment);
      expect(tail.end - position - 50).to.be.at.most(bound);
      segment.end = tail.end;
      const files = new FaultyFiles();
      const content = Buffer.alloc(segment.offsetOf(segment.end));
      let at = segment.offsetOf(position + 50);
      for (const slice of tail.slices(0, tail.end)) {
        for (let from = 0; from < slice.length; from += slice.readUInt32LE(from))
          sealRecord(dataViewOf(slice), from, slice.readUInt32LE(from), segment.seed);
        slice.copy(content, at);
        at += slice.length;
      }
      files.replace("/data/seg-000000000003.log", content);
      for (const known of [true, false]) {
        if (!known) segment.indexAt = 0; // then it is looked for
        for (const [lane, list] of lists) {
          const index = await loadIndex(new SegmentReader(files, "/data"), segment, lane, Buffer.alloc(4096));
          const found: number[] = [];
          for (; index !== undefined && index.offset > 0; index.next()) found.push(index.offset);
          expect(found).to.deep.equal(list);
        }
      }
      expect(segment.indexAt).to.equal(segment.offsetOf(position + 50));
    }
  });

  it("is there after commits that threw, not there after a roll on failure, and never names what was cut", async () => {
    const files = new FaultyFiles();
    const store = await open(files.mount(), new TestClock(), { segmentBytes: 32 * 1024 });
    const lane = store.uplink("cloud", generous).lane(4);
    const random = randomOf(3);
    const texts: number[] = [];
    for (let number = 0; number < 1500; number += 1) {
      const throws = random() < 0.2;
      if (number === 700) {
        const at = files.steps + 2;
        let left = 1;
        const once = (): "EIO" | undefined => (left-- > 0 ? "EIO" : undefined);
        files.fault = (operation, _path, step) => (operation === "write" && step >= at ? once() : undefined);
      }
      if (number === 720) files.fault = () => undefined;
      try {
        const { group } = store.commit((txn) => {
          txn.message(message(`${number} ${"x".repeat(100)}`), [taker(lane)]);
          if (throws) throw new RangeError("on purpose");
        });
        texts.push(number);
        if (number % 10 === 0) await durable(store, group);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
      }
    }
    await store.close();
    const offsets = new Set<string>();
    const indexed = new Set<string>();
    for (const { path, at, length } of indexRecords(files)) {
      const from = new ByteReader(files.content(path), at + recordHeaderBytes, at + length);
      if (from.uvarint() !== Number(path.slice(10, 22))) continue; // moved by a roll
      for (let skip = 4; skip > 0; skip -= 1) from.uvarint();
      for (let offset = 0; from.at < from.end; ) {
        offset += from.uvarint();
        const content = files.content(path);
        expect(content[offset + 8], `${path} at ${offset}`).to.equal(recordType.message);
        offsets.add(`${path} ${offset}`);
      }
      indexed.add(path);
    }
    expect(offsets.size).to.be.above(500);
    for (const { path, at } of messageRecords(files))
      if (indexed.has(path)) expect(offsets.has(`${path} ${at}`), `${path} at ${at} is in its index`).to.equal(true);
    const again = await open(files.mount(), new TestClock());
    expect((await drain(again)).dense).to.deep.equal(texts);
    await turn();
    await again.close();
  });
});
