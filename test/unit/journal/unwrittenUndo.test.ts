/** Commits that throw while references wait to be written: nothing of them stays, and nothing of what was before goes with them. */
import { expect } from "chai";
import type { Store, Txn } from "../../../src/base/contracts.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, message, open, TestClock, textOf } from "./support.ts";

const large = message("x".repeat(3000));

/** After two durable references of "q" and two of the open group; none of it is to happen. */
const undone: ReadonlyArray<readonly [name: string, change: (txn: Txn, position: number) => void]> = [
  [
    "a reference, then a large message",
    (txn, position) => {
      txn.reference("q", position, 1);
      txn.message(large, []);
    },
  ],
  [
    "a release of one that is not written, then a large message",
    (txn) => {
      txn.release("q", 3);
      txn.message(large, []);
    },
  ],
  ["releases across what is written and what is not", (txn) => txn.release("q", 1, 9)],
  [
    "a large message, then its reference and a release",
    (txn) => {
      txn.reference("q", txn.message(large, []), 1);
      txn.release("q", 1, 9);
    },
  ],
  [
    "a queue that is dropped and made anew, twice",
    (txn, position) => {
      for (let times = 0; times < 2; times += 1) {
        txn.dropQueue("q");
        for (let left = 5; left > 0; left -= 1) txn.reference("q", position, 1);
      }
      txn.release("q", 1, 2);
    },
  ],
  [
    "a queue that was not there",
    (txn, position) => {
      txn.reference("new", position, 1);
      txn.release("new", 1);
      txn.dropQueue("new");
      txn.reference("new", position, 1);
    },
  ],
];

async function contents(store: Store): Promise<string[]> {
  const queue = store.references("q")!;
  const found = await queue.read(0, { messages: 100, bytes: 1e6 });
  return [`next ${queue.nextOrdinal}`, ...found.map((one) => `${one.ordinal} ${textOf(one)}`)];
}

describe("journal: commits that throw while references wait to be written", () => {
  for (const [name, change] of undone) {
    it(name, async () => {
      const files = new FaultyFiles();
      const more = { tuning: { spares: 0, largeRecordBytes: 1000 } };
      let store = await open(files.mount(), new TestClock(), more);
      let position = 0;
      const refer = (texts: readonly string[]): number =>
        store.commit((txn) => {
          for (const text of texts) {
            position = txn.message(message(text), []);
            txn.reference("q", position, 1);
          }
        }).group;
      await durable(store, refer(["one", "two"]));
      let group = refer(["three", "four"]);
      expect(() =>
        store.commit((txn) => {
          change(txn, position);
          throw new Error("taken back");
        }),
      ).to.throw("taken back");
      const before = await contents(store);
      expect(before).to.deep.equal(["next 5", "1 one", "2 two", "3 three", "4 four"]);
      expect(store.references("q")!.ended).to.equal(false);
      // What comes next is of the queue that is there again.
      ({ group } = store.commit((txn) => {
        txn.release("q", 2);
        txn.reference("q", position, 1);
      }));
      await durable(store, group);
      files.kill();
      store = await open(files.mount(), new TestClock(), more);
      expect(await contents(store)).to.deep.equal(["next 6", "1 one", "3 three", "4 four", "5 four"]);
      expect([...store.referenceNames()]).to.deep.equal(["q"]);
      expect(store.stats().recovery.corruptRecords).to.equal(0);
      await store.close();
    });
  }

  it("a commit of references alone is told only once they are on the disk", async () => {
    const files = new FaultyFiles();
    const store = await open(files.mount(), new TestClock());
    const put = store.commit((txn) => txn.message(message("one"), []));
    await durable(store, put.group);
    const before = store.durableGroup;
    const { group } = store.commit((txn) => txn.reference("q", put.value, 1));
    expect(group).to.be.above(before);
    await durable(store, group);
    files.kill();
    expect((await open(files.mount(), new TestClock())).references("q")?.size).to.equal(1);
  });
});
