import { expect } from "chai";
import type { Store } from "../../../src/base/contracts.ts";
import { headerBytes, recordType, seedOf, segmentMagic } from "../../../src/journal/format.ts";
import { acceptedEnd } from "../../../src/journal/lastGroup.ts";
import { RecordWalker } from "../../../src/journal/walk.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, until } from "./support.ts";

interface Built {
  readonly files: FaultyFiles;
  readonly path: string;
  readonly content: Buffer;
  /** Of the last group. */
  readonly from: number;
  readonly to: number;
  readonly texts: string[];
}

/** Killed at once after a group of five was acknowledged: nothing follows that would prove it. */
async function build(texts: string[]): Promise<Built> {
  const files = new FaultyFiles();
  const store = await open(files.mount(), new TestClock());
  const lane = store.uplink("cloud", generous).lane(4);
  store.rule("cloud", "{}");
  await durable(store, store.commit((txn) => txn.put("m", "k", Buffer.from("v"))).group);
  let group = 0;
  for (const text of texts) group = store.commit((txn) => txn.message(message(text), [taker(lane)])).group;
  await durable(store, group);
  files.kill();
  const [path] = files.paths().filter((name) => name.includes("seg-"));
  const content = files.content(path!);
  const walker = new RecordWalker();
  walker.start(content, headerBytes, content.length, 0, seedOf(segmentMagic, content.subarray(16, 24), 1));
  const ends: number[] = [];
  while (walker.step() === "record") if (walker.type === recordType.groupEnd) ends.push(walker.next);
  return { files, path: path!, content, from: ends.at(-2)!, to: ends.at(-1)!, texts };
}

async function reopened({ files, path }: Built, content: Buffer): Promise<{ store: Store; lane: string[] }> {
  const copy = files.clone();
  copy.replace(path, content);
  const store = await open(copy.mount(), new TestClock());
  const queue = store.uplink("cloud", generous);
  const lane: string[] = [];
  await until(() => {
    for (let next = queue.next(); next !== undefined; next = queue.next()) lane.push(textOf(next));
    return queue.stats().messages === lane.length;
  });
  return { store, lane };
}

describe("journal: the last group, which nothing proves", () => {
  for (const [where, behind] of [
    ["at the end of a file that grew", 0],
    ["in a prepared file", 5000],
  ] as const) {
    it(`every bit of it flipped in turn: the group counts (${where})`, async () => {
      const { content, from, to } = await build(["a", "b", "c", "d", "e"]);
      const buffer = Buffer.concat([content, Buffer.alloc(behind)]);
      const seed = seedOf(segmentMagic, content.subarray(16, 24), 1);
      for (let bit = from * 8; bit < to * 8; bit += 1) {
        buffer[bit >>> 3] = buffer[bit >>> 3]! ^ (1 << (bit & 7));
        const accepted = acceptedEnd({ buffer: buffer.subarray(headerBytes), at: headerBytes, seed, proven: 0 });
        expect(accepted, `bit ${bit}`).to.equal(to);
        buffer[bit >>> 3] = buffer[bit >>> 3]! ^ (1 << (bit & 7));
      }
    });

    it(`a bit of each byte flipped in turn costs what is in that record, and no more (${where})`, async () => {
      const built = await build(["a", "b", "c", "d", "e"]);
      for (let byte = built.from; byte < built.to; byte += 1) {
        const bit = byte * 8 + (byte % 8);
        const flipped = Buffer.concat([built.content, Buffer.alloc(behind)]);
        flipped[bit >>> 3] = flipped[bit >>> 3]! ^ (1 << (bit & 7));
        const { store, lane } = await reopened(built, flipped);
        const at = `bit ${bit & 7} of ${(bit >>> 3) - built.from}, ${built.to - (bit >>> 3)} before the end`;
        expect(lane, at).to.deep.equal(built.texts.filter((text) => lane.includes(text)));
        expect(lane.length, at).to.be.at.least(4);
        expect(store.stats().recovery.corruptRecords, at).to.equal(1);
        expect(store.stats().recovery.losses.length, at).to.equal(1);
        expect(store.stats().recovery.tornBytes, at).to.equal(0);
      }
    });
  }

  it("a bit of each byte of the whole file flipped in turn, headers too: nothing is missing but what is in that record", async function () {
    this.timeout(60_000);
    const built = await build(["a", "b", "c", "d", "e"]);
    for (let byte = 0; byte < built.from; byte += 1) {
      if (byte < headerBytes && byte % 512 >= 128 && byte % 64 !== 0) continue; // the header's zeros
      const flipped = Buffer.concat([built.content, Buffer.alloc(5000)]);
      flipped[byte] = flipped[byte]! ^ (1 << (byte % 8));
      const { store, lane } = await reopened(built, flipped);
      expect(lane, `byte ${byte}`).to.deep.equal(built.texts);
      expect(store.stats().recovery.corruptRecords, `byte ${byte}`).to.be.at.most(1);
    }
  });

  it("a sector of it that was never written: the group is absent, whole", async () => {
    const texts = ["a", "b", "c", "d", "e"].map((text) => text.repeat(700));
    const built = await build(texts);
    for (let sector = Math.floor(built.from / 512); sector * 512 < built.to; sector += 1) {
      const torn = Buffer.from(built.content);
      torn.fill(0, Math.max(built.from, sector * 512), Math.min(built.to, (sector + 1) * 512));
      for (const content of [torn, Buffer.concat([torn, Buffer.alloc(5000)])]) {
        const { store, lane } = await reopened(built, content);
        expect(lane, `sector ${sector}`).to.deep.equal([]);
        expect(store.stats().recovery.corruptRecords).to.equal(0);
        expect(store.stats().recovery.tornBytes).to.be.above(0);
        expect(Buffer.from(store.get("m", "k")!).toString()).to.equal("v");
      }
    }
  });

  it("a flipped bit in a message whose payload is sectors of zeros costs that message, not the group", async () => {
    const zeros = "\u0000".repeat(4000);
    const built = await build(["a", `b${zeros}`, `c${zeros}`, "d"]);
    const { content, from } = built;
    for (let at = from; at < from + 9000; at += 250) {
      const damaged = Buffer.from(content);
      damaged[at] = damaged[at]! ^ 0x20;
      const { store, lane } = await reopened(built, damaged);
      expect(lane.length, `byte ${at}`).to.be.at.least(3);
      await store.close();
    }
  });

  it("zeros in a payload are not taken for a sector that was never written", async () => {
    const built = await build(["a", "\0".repeat(3000), "b", "\0".repeat(3000), "c"]);
    const flipped = Buffer.from(built.content);
    const at = built.content.indexOf("t/a", built.from);
    flipped[at] = flipped[at]! ^ 1;
    const { lane } = await reopened(built, flipped);
    expect(lane).to.deep.equal(built.texts.slice(1));
  });

  it("a damaged end of the acknowledged group is mended though another was being written behind it", async () => {
    const built = await build(["a", "b", "c", "d", "e"]);
    // The next group, up to where the machine stopped.
    const next = built.content.subarray(built.from, built.from + 70);
    for (let bit = (built.to - 20) * 8; bit < built.to * 8; bit += 1) {
      const flipped = Buffer.concat([built.content, next]);
      flipped[bit >>> 3] = flipped[bit >>> 3]! ^ (1 << (bit & 7));
      const { lane } = await reopened(built, flipped);
      expect(lane, `bit ${bit}`).to.deep.equal(built.texts);
    }
  });
});
