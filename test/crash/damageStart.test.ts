import { expect } from "chai";
import type { Store } from "../../src/base/contracts.ts";
import { TidegateError } from "../../src/base/errors.ts";
import { FaultyFiles, type Operation } from "../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "../unit/journal/support.ts";

// A disk that cannot be read for a moment is not a damaged one: a start may say no, but it must not take for lost, or remove, what is there.

const texts = Array.from({ length: 24 }, (_, index) => `m${index} ${"x".repeat(60)}`);

/** Three or more segments and a checkpoint, killed. */
async function build(): Promise<FaultyFiles> {
  const files = new FaultyFiles();
  const clock = new TestClock();
  const small = { segmentBytes: 1800, tuning: { checkpointBytes: 2000 } };
  const store = await open(files.mount(), clock, small);
  const lane = store.uplink("cloud", generous).lane(4);
  for (const [index, text] of texts.entries()) {
    await durable(store, store.commit((txn) => txn.message(message(text), [taker(lane, 1)])).group);
    if (index === 12) clock.advance(1000);
  }
  for (let turns = 0; turns < 20; turns += 1) await turn();
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

/** Opens with one operation failing; undefined when the store said no. */
async function openWith(files: FaultyFiles, operation: Operation, at: number, code: "EMFILE"): Promise<number> {
  let seen = 0;
  let failed = false;
  files.fault = (now) => {
    if (now !== operation || failed || seen++ < at) return undefined;
    failed = true;
    return code;
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
  return failed ? 1 : 0;
}

describe("journal: a start on a disk that cannot be read for a moment", () => {
  for (const [operation, code] of [
    ["open", "EMFILE"],
    ["read", "EMFILE"],
  ] as const) {
    it(`${code} at any ${operation} costs nothing once it is over`, async function () {
      this.timeout(60_000);
      const built = await build();
      let times = 0;
      for (let at = 0; ; at += 1) {
        const files = built.clone();
        if ((await openWith(files, operation, at, code)) === 0) break;
        times += 1;
        const store = await open(files.mount(), new TestClock());
        expect(await read(store), `${operation} ${at}`).to.deep.equal(texts);
        await store.close();
      }
      expect(times, "operations of one start").to.be.above(4);
    });
  }
});
