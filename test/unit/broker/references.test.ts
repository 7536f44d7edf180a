import { expect } from "chai";
import { Meter } from "../../../src/base/meter.ts";
import { BrokerMetrics } from "../../../src/broker/metrics.ts";
import { References } from "../../../src/broker/references.ts";
import { ManualClock } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

describe("references that are about to be released", () => {
  it("no longer wait, in whatever order the queues' acknowledgements come", () => {
    const store = new MemoryStore();
    const clock = new ManualClock();
    const references = new References({ store, clock, metrics: new BrokerMetrics(new Meter()) });
    const queues = ["session/a", "session/b", "session/c"];
    const message = { topic: "t", payload: Buffer.from("x"), qos: 1, retain: false, source: "mqtt:p" } as const;
    store.commit((txn) => {
      const position = txn.message(message, []);
      for (const queue of queues) for (let at = 0; at < 20; at += 1) references.add(txn, queue, position, 1, 1);
    });
    const left = new Map(queues.map((queue) => [queue, 20]));
    for (const [at, letter] of [..."aaabacabbbccab"].entries()) {
      const queue = `session/${letter}`;
      const waits = left.get(queue)!;
      references.release(queue, 21 - waits);
      left.set(queue, waits - 1);
      if (at === 8) store.commit((txn) => references.flushInto(txn));
      for (const name of queues) expect(references.waiting(name), `${name} after ${at + 1}`).to.equal(left.get(name));
    }
    references.flush();
    for (const name of queues) {
      expect(references.waiting(name)).to.equal(left.get(name));
      expect(store.references(name)?.size).to.equal(left.get(name));
    }
    expect(references.total).to.equal(60 - 14);
  });
});
