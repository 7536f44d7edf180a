/** References that are not in the journal yet take room all the same: a slow disk must not turn many of them into more than the store may hold. */
import { expect } from "chai";
import type { Files, OpenFile } from "../../../src/base/files.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, message, open, TestClock, turn } from "./support.ts";

const maxBytes = 2 * 1024 * 1024;

/** A disk whose syncs wait for `go`. */
class HeldDisk {
  readonly files = new FaultyFiles();
  #held: Promise<void> | undefined;
  #go: () => void = () => undefined;

  hold(): void {
    this.#held = new Promise((resolve) => {
      this.#go = resolve;
    });
  }

  go(): void {
    this.#held = undefined;
    this.#go();
  }

  mount(): Files {
    const files = this.files.mount();
    return { ...files, open: async (path, mode) => this.#slow(await files.open(path, mode)) };
  }

  #slow(file: OpenFile): OpenFile {
    return {
      write: (buffers, position) => file.write(buffers, position),
      read: (target, position) => file.read(target, position),
      datasync: async () => {
        await this.#held;
        await file.datasync();
      },
      size: () => file.size(),
      truncate: (size) => file.truncate(size),
      close: () => file.close(),
    };
  }
}

describe("journal: room for references of the open group", () => {
  it("they count while a sync takes its time: what is admitted then fits", async () => {
    const disk = new HeldDisk();
    const store = await open(disk.mount(), new TestClock(), { maxBytes });
    const names = Array.from({ length: 100 }, (_, index) => `session/sensor-${index}`);
    disk.hold();
    store.commit((txn) => txn.put("m", "first", Buffer.from("its sync takes its time")));
    for (let turns = 0; turns < 10; turns += 1) await turn();
    let group = 0;
    let admitted = 0;
    while (store.admit({ bytes: 100, rejectNewest: [] }) === "ok") {
      admitted += 1;
      expect(admitted).to.be.below(1e5);
      ({ group } = store.commit((txn) => {
        const position = txn.message(message("x".repeat(50)), []);
        for (const name of names) txn.reference(name, position, 1);
      }));
    }
    expect(admitted, "there was room for some").to.be.above(100);
    disk.go();
    await durable(store, group);
    const bytes = disk.files.paths().reduce((sum, path) => sum + disk.files.content(path).length, 0);
    expect(bytes).to.be.at.most(maxBytes);
    expect(bytes, "and little of the room is lost to guessing").to.be.above(maxBytes / 3);
    await store.close();
  });
});
