import { expect } from "chai";
import { mergedPaths, merging, seconds } from "./mergeRig.ts";
import { ShareRig } from "./shareRig.ts";
import { message, randomOf, taker, textOf, turn } from "./support.ts";

describe("journal: a lane that is read from RAM and from disk in turn", () => {
  it("goes on where it was in RAM when that is on disk only", async () => {
    const tuning = { spares: 0, tailBytes: 400_000, tailChunkBytes: 10_000 };
    const rig = await new ShareRig({ segmentBytes: 4_000_000, tuning }).open();
    const put = (from: number, count: number): Promise<void> =>
      rig.put(Array.from({ length: count }, (_, index) => `${from + index} ${"x".repeat(1000)}`));
    const got: number[] = [];
    const read = async (count: number): Promise<void> => {
      for (let left = count; left > 0; left -= 1) {
        const [one] = await rig.take(1);
        rig.queue.settle(one!);
        got.push(Number(textOf(one!).split(" ")[0]));
        for (let turns = 0; turns < 4; turns += 1) await turn(); // it reads ahead while there is something left
      }
    };
    await put(0, 600); // the first 200 lie on disk only
    await read(360); // far into what is in RAM
    await put(600, 500); // which that pushes out
    await read(740);
    expect(got).to.deep.equal(Array.from({ length: 1100 }, (_, index) => index));
    expect(rig.queue.stats().messages).to.equal(0);
  });

  it("goes on in RAM at a record, where a merged segment reaches into what is there", async () => {
    // So little is read at a time that reading stops after each message of the merged segment in turn.
    const tuning = { ...merging, spares: 0, tailBytes: 16_000, tailChunkBytes: 1000, aheadBytes: 1 };
    const rig = await new ShareRig({ segmentBytes: 3000, tuning }).open();
    const texts = Array.from({ length: 200 }, (_, index) => `${index} ${"x".repeat(index % 7)}`);
    for (const text of texts) await rig.put([text]);
    const wanted: string[] = [];
    for (const [index, out] of (await rig.take(texts.length)).entries()) {
      if (index % 10 === 3) wanted.push(textOf(out));
      else rig.queue.settle(out);
    }
    rig.queue.rewind();
    await seconds(rig.clock, 6, rig.files);
    expect(mergedPaths(rig.files)).to.not.deep.equal([]);
    expect(await rig.drain()).to.deep.equal(wanted);
    await rig.put(["fresh"]);
    expect(await rig.drain(), "it is not far ahead of what comes").to.deep.equal(["fresh"]);
    expect(rig.queue.stats().dropped).to.deep.equal({});
  });

  for (const seed of Array.from({ length: Number(process.env["TIDEGATE_SEEDS"] ?? 4) }, (_, index) => index + 1)) {
    it(`hands out each message once, in order, while others come that are not durable yet (seed ${seed})`, async function () {
      this.timeout(60_000);
      const random = randomOf(seed);
      const below = (limit: number): number => Math.floor(random() * limit);
      const tuning = { spares: 0, tailBytes: [20_000, 60_000, 200_000][seed % 3]!, tailChunkBytes: 10_000 };
      const rig = await new ShareRig({ segmentBytes: [300_000, 4_000_000][seed % 2]!, tuning }).open();
      const filler = "x".repeat(8000);
      let count = 0;
      let next = 0;
      const put = (messages: number): void => {
        const lane = rig.queue.lane(5);
        for (let left = messages; left > 0; left -= 1) {
          const text = `${count++} ${filler.slice(below(random() < 0.1 ? 8000 : 400))}`;
          rig.store.commit((txn) => void txn.message(message(text), [taker(lane, 1)]));
        }
      };
      const read = async (messages: number): Promise<void> => {
        for (let left = messages, idle = 0; left > 0 && idle < 200; ) {
          const one = rig.queue.next();
          if (one === undefined) {
            idle += 1;
            await turn();
            continue;
          }
          idle = 0;
          left -= 1;
          expect(Number(textOf(one).split(" ")[0])).to.equal(next);
          next += 1;
          rig.queue.settle(one);
        }
      };
      put(500);
      for (let step = 0; step < 200; step += 1) {
        if (random() < 0.5) put(below(random() < 0.2 ? 1000 : 100));
        for (let turns = below(4); turns > 0; turns -= 1) await turn();
        if (random() < 0.6) await read(Math.min(below(random() < 0.3 ? 600 : 60), count - next));
        rig.clock.advance(below(50));
      }
      await read(count);
      expect(next).to.equal(count);
    });
  }
});
