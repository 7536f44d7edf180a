import { expect } from "chai";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { message, open, TestClock, turn } from "./support.ts";

describe("journal: a disk that cannot be read just now", () => {
  it("says so instead of an empty answer, and nothing is lost by it", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const before = await open(files.mount(), clock, {});
    before.commit((txn) => {
      for (const text of ["a", "b"]) txn.reference("q", txn.message(message(text), []), 1);
    });
    await before.close();
    files.kill();
    const store = await open(files.mount(), clock, {});
    files.fault = (operation) => (operation === "open" ? "EMFILE" : undefined);
    const queue = store.references("q");
    const failed = await queue?.read(0, { messages: 10, bytes: 1e6 }).then(
      () => "read",
      (error: { code: string; retriable: boolean }) => [error.code, error.retriable],
    );
    expect(failed).to.deep.equal(["TG_STORE_READ", true]);
    files.fault = () => undefined;
    await turn();
    expect(await queue?.read(0, { messages: 10, bytes: 1e6 })).to.have.length(2);
    expect(store.stats().recovery.corruptRecords).to.equal(0);
    await store.close();
  });
});
