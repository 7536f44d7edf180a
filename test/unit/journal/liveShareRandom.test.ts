import { expect } from "chai";
import type { QueuedMessage } from "../../../src/base/contracts.ts";
import { named, ShareRig } from "./shareRig.ts";
import { randomOf, textOf, turn } from "./support.ts";

describe("journal: backlog and fresh readings share the link, at random", () => {
  /** Both are read from disk: hardly anything stays in RAM. */
  for (const seed of Array.from({ length: Number(process.env["TIDEGATE_SEEDS"] ?? 8) }, (_, index) => index + 1)) {
    const isFull = seed % 2 === 0;
    it(`each message once, each kind in its order, whatever comes between${isFull ? ", a full store too" : ""} (seed ${seed})`, async function () {
      this.timeout(60_000);
      const random = randomOf(seed);
      const below = (limit: number): number => Math.floor(random() * limit);
      const tuning = { spares: 0, tailBytes: 20_000, tailChunkBytes: 10_000 };
      const segmentBytes = isFull ? 65_536 : [20_000, 200_000, 1_000_000][seed % 3]!;
      const rig = await new ShareRig({ segmentBytes, tuning, ...(isFull ? { maxBytes: 2 ** 21 } : {}) }).open();
      rig.store.configured();
      const dropped = (): number => rig.queue.stats().dropped["store-full"] ?? 0;
      const filler = "x".repeat(8000);
      const seen = new Set<string>();
      let settled = 0;
      let count = 0;
      let head = 0;
      let last = { late: 0, fresh: 0 };
      let flying: QueuedMessage[] = [];
      const put = async (messages: number): Promise<void> => {
        const priority = [5, 5, 7][below(3)]!;
        await rig.put(
          named("m", messages, count).map((text) => `${text} ${filler.slice(below(8000))}`),
          priority,
        );
        count += messages;
      };
      const read = async (messages: number): Promise<void> => {
        for (let left = messages, idle = 0; left > 0 && idle < 200; ) {
          const next = rig.queue.next();
          if (next === undefined) {
            idle += 1;
            await turn();
            continue;
          }
          idle = 0;
          left -= 1;
          const [name] = textOf(next).split(" ");
          if (seen.has(name!)) throw new Error(`${name} came twice`);
          seen.add(name!);
          const kind = next.position < head ? "late" : "fresh";
          if (next.priority === 5) {
            expect(next.position, `${name}, ${kind}`).to.be.above(last[kind]);
            last = { ...last, [kind]: next.position };
          }
          flying.push(next);
        }
        flying = flying.filter((one) => {
          const stays = random() < 0.1;
          if (!stays) rig.queue.settle(one);
          if (!stays) settled += 1;
          return stays;
        });
      };
      await put(700);
      for (let round = 0; round < 12; round += 1) {
        head = rig.store.head;
        last = { ...last, fresh: 0 };
        rig.linkUp([0.2, 0.5, 0.9][below(3)]!);
        for (let step = below(6); step > 0; step -= 1) {
          await put(below(300));
          await read(below(200));
          rig.clock.advance(below(500));
        }
        if (random() < 0.3) {
          rig.queue.rewind();
          for (const one of flying) seen.delete(textOf(one).split(" ")[0]!);
          flying = [];
          last = { late: 0, fresh: 0 };
          head = 0;
        }
        expect(rig.queue.stats().messages).to.equal(count - settled - dropped());
      }
      await read(count);
      for (const one of flying.splice(0)) rig.queue.settle(one);
      expect(seen.size + dropped()).to.equal(count);
      expect(dropped() > 0).to.equal(isFull);
      expect(rig.queue.stats()).to.deep.include({ messages: 0, bytes: 0 });
    });
  }
});
