import { expect } from "chai";
import type { Message } from "../../../src/base/message.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, open, TestClock } from "./support.ts";

const dayMs = 86_400_000;

describe("journal: commands of an earlier run", () => {
  const made = (source: string, seconds: number | undefined): Message => ({
    ...{ topic: "cmd/door", payload: Buffer.from("open"), qos: 1, retain: false, source },
    ...(seconds === undefined ? {} : { properties: { messageExpirySeconds: seconds } }),
  });

  it("are as old as the wall clock says after an outage that the store clock does not believe; readings are not", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    let store = await open(files.mount(), clock);
    const put = (message: Message) => store.commit((txn) => txn.reference("q", txn.message(message, []), 1)).group;
    for (const message of [made("uplink:cloud", 60), made("uplink:cloud", undefined), made("mqtt:sensor", 60)])
      await durable(store, put(message));
    await store.close();
    clock.forgetTimers();
    clock.wall += 3 * dayMs;
    store = await open(files.mount(), clock);
    await durable(store, put(made("uplink:cloud", 60))); // of this run: a clock that is set now must not expire it
    clock.wall += 3 * dayMs;
    const read = await store.references("q")!.read(0, { messages: 10, bytes: 1e6 });
    const ages = read.map(({ acceptedAtMs }) => Math.round((store.nowMs() - acceptedAtMs) / dayMs));
    expect(ages).to.deep.equal([6, 0, 0, 0]);
    await store.close();
  });

  it("a wall clock that was set back makes none younger", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    let store = await open(files.mount(), clock);
    const { group } = store.commit((txn) => txn.reference("q", txn.message(made("uplink:cloud", 60), []), 1));
    await durable(store, group);
    clock.advance(30_000);
    await store.close();
    clock.forgetTimers();
    clock.wall -= 300 * dayMs;
    store = await open(files.mount(), clock);
    const [first] = await store.references("q")!.read(0, { messages: 10, bytes: 1e6 });
    expect(store.nowMs() - (first?.acceptedAtMs ?? 0)).to.be.within(29_000, 31_000);
    await store.close();
  });
});
