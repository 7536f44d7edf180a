import { expect } from "chai";
import type { Store } from "../../src/base/contracts.ts";
import { TidegateError } from "../../src/base/errors.ts";
import { FaultyFiles, type Operation } from "../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "../unit/journal/support.ts";

// A disk that cannot be read for a moment is not a damaged one: a start may say no, but it must not take for lost, or remove, what is there.

const texts = Array.from({ length: 24 }, (_, index) => `m${index} ${"x".repeat(60)}`);

const early = 10;

/** Checkpoints that hold what no segment says any more, since those are freed; then several segments; killed. */
async function build(): Promise<FaultyFiles> {
  const files = new FaultyFiles();
  const clock = new TestClock();
  const small = { segmentBytes: 1800, tuning: { checkpointBytes: 1000, checkpointEveryMs: 100 } };
  const store = await open(files.mount(), clock, small);
  const queue = store.uplink("cloud", generous);
  const lane = queue.lane(4);
  await durable(store, store.commit((txn) => txn.put("m", "k", Buffer.from("kept"))).group);
  for (const [index, text] of texts.entries()) {
    await durable(store, store.commit((txn) => txn.message(message(text), [taker(lane, 1)])).group);
    if (index >= early) continue;
    const next = queue.next();
    expect(textOf(next!)).to.equal(text);
    queue.settle(next!);
    clock.advance(1000);
    for (let turns = 0; turns < 30; turns += 1) await turn();
  }
  for (let turns = 0; turns < 20; turns += 1) await turn();
  expect(files.paths(), "the first segment is freed").to.not.include("/data/seg-000000000001.log");
  files.kill();
  return files;
}

async function read(store: Store): Promise<string[]> {
  const queue = store.uplink("cloud", generous);
  const found: string[] = [];
  await until(() => {
    for (let next = queue.next(); next !== undefined; next = queue.next()) found.push(textOf(next));
    return queue.stats().messages === found.length;
  }, "all that waits comes out");
  return found;
}

/** Opens with some operations in a row failing, which may make the store say no. @returns how many failed */
async function openWith(files: FaultyFiles, operation: Operation, at: number, times: number): Promise<number> {
  let seen = 0;
  let failed = 0;
  files.fault = (now) => {
    if (now !== operation || failed === times || seen++ < at) return undefined;
    failed += 1;
    return "EMFILE";
  };
  try {
    const store = await open(files.mount(), new TestClock());
    files.fault = () => undefined;
    for (let turns = 0; turns < 20; turns += 1) await turn();
    await store.close();
  } catch (error) {
    expect(error).to.be.instanceOf(TidegateError);
  }
  files.kill();
  return failed;
}

describe("journal: a start on a disk that cannot be read for a moment", () => {
  for (const [operation, times] of [
    ["open", 1],
    ["open", 4],
    ["read", 1],
  ] as const) {
    it(`no descriptors for ${times} ${operation}: costs nothing once it is over`, async function () {
      this.timeout(180_000);
      const built = await build();
      let starts = 0;
      for (let at = 0; ; at += 1) {
        const files = built.clone();
        if ((await openWith(files, operation, at, times)) === 0) break;
        starts += 1;
        const store = await open(files.mount(), new TestClock());
        expect(await read(store), `${operation} ${at}`).to.deep.equal(texts.slice(early));
        expect(Buffer.from(store.get("m", "k") ?? []).toString(), `${operation} ${at}`).to.equal("kept");
        await store.close();
      }
      expect(starts, "operations of one start").to.be.above(4);
    });
  }
});
